//! Linear maps with low-rank changes (arXiv 2106.09685), which read their input once.

use windlass_tensor::Tensor;

use super::linear::{linear_transposed, of_weights, wide};
use super::scale;
use crate::args::numbers;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Reads, Tolerance};

/// `x (W + by B A)^T` for several maps of one input. Gives for each the result `[.., out]` and `x A^T` `[.., rank]`, which its
/// gradient reads.
pub static LORA_LINEAR: Op = Op {
    name: "lora_linear",
    about: "x times the transpose of each weight, plus by times x A^T B^T; and x A^T",
    // Each map is a weight [out, in], plain or packed, A [rank, in] and B [out, rank].
    inputs: &[Input::new("x"), Input::many("maps")],
    attributes: &[Attribute::required("by")],
    outputs,
    reference,
    gradient: Gradient::rule(
        |_, input| match input {
            0 => Reads::inputs_from(1),
            _ => Reads::inputs_from(0).and(Reads::outputs()),
        },
        backward,
    ),
    tolerance: Tolerance { relative: 1e-4, absolute: 1e-4 },
    profiles: |_| {
        let how = || Attributes::new().float("by", 0.5);
        let map = |profile: Profile, out: usize, inside: usize| {
            profile.with(Sample::weight(&[out, inside])).normal(&[4, inside]).normal(&[out, 4])
        };
        vec![
            map(Profile::new("one").normal(&[5, 512]), 33, 512).attributes(how()),
            map(map(Profile::new("two").normal(&[17, 512]), 40, 512), 64, 512).attributes(how()),
            map(Profile::new("odd").normal(&[13, 67]), 5, 67).attributes(how()),
        ]
    },
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let x = q.shape(0)?;
    let Some((inside, outer)) = x.split_last() else { return q.fail("x is a single number") };
    let (maps, rest) = q.inputs[1..].as_chunks::<3>();
    if maps.is_empty() || !rest.is_empty() {
        return q.fail("takes a weight, A and B for each map");
    }
    let mut specs = Vec::with_capacity(2 * maps.len());
    for (i, map) in maps.iter().enumerate() {
        let [[out, columns], [rank, across], [up, low]] = map.map(|t| [t.shape().rows(), t.shape().columns()]);
        if map.iter().any(|t| t.shape().rank() != 2) || [columns, across] != [*inside; 2] || up != out || low != rank {
            let message = format!("map {i} has {:?}, {:?}, {:?}", map[0].shape(), map[1].shape(), map[2].shape());
            return q.fail(format!("{message} for rows of {inside} values"));
        }
        for columns in [out, rank] {
            specs.push(OutputSpec::new(wide(q.input(0)?), [outer, &[columns]].concat()));
        }
    }
    Ok(specs)
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let (x, by) = (args.numbers(0)?, args.inquiry().float("by")?);
    let inside = args.inputs[0].shape().columns().max(1);
    let times = |x: &[f64], matrix: &[f64], columns: usize| -> Vec<f64> {
        let dot = |row: &[f64], w: &[f64]| -> f64 { row.iter().zip(w).map(|(x, w)| x * w).sum() };
        x.chunks_exact(columns).flat_map(|row| matrix.chunks_exact(columns).map(move |w| dot(row, w))).collect()
    };
    for (i, map) in args.inputs[1..].as_chunks::<3>().0.iter().enumerate() {
        let [weight, a, b] = [numbers(args.op, map[0])?, numbers(args.op, map[1])?, numbers(args.op, map[2])?];
        let low = times(&x, &a, inside);
        let change = times(&low, &b, map[1].shape().rows().max(1));
        let mut y = times(&x, &weight, inside);
        y.iter_mut().zip(change).for_each(|(y, change)| *y += by * change);
        args.write_numbers(2 * i, &y)?;
        args.write_numbers(2 * i + 1, &low)?;
    }
    Ok(())
}

fn backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (by, mut all) = (b.inquiry().float("by")?, vec![None; b.inputs.len()]);
    for (i, gradients) in b.gradients.chunks(2).enumerate() {
        let [weight, down, up] = [3 * i + 1, 3 * i + 2, 3 * i + 3];
        let mut of_low = gradients.get(1).cloned().flatten();
        if let Some(gradient) = &gradients[0] {
            if b.wants(0) {
                all[0] = Some(linear_transposed(b.cx, gradient, b.input(weight)?, all[0].as_ref())?);
            }
            if b.wants(weight) {
                all[weight] = Some(of_weights(b.cx, gradient, b.input(0)?)?);
            }
            if b.wants(up) {
                let low = scale(b.cx, b.output(2 * i + 1)?.clone(), by)?;
                all[up] = Some(of_weights(b.cx, gradient, &low)?);
            }
            if b.wants(0) || b.wants(down) {
                // The gradient is scaled where it is small.
                let flowed = scale(b.cx, linear_transposed(b.cx, gradient, b.input(up)?, None)?, by)?;
                of_low = Some(match of_low {
                    Some(known) => super::elementwise(b.cx, "add", &[&known, &flowed])?,
                    None => flowed,
                });
            }
        }
        let Some(of_low) = of_low else { continue };
        if b.wants(0) {
            all[0] = Some(linear_transposed(b.cx, &of_low, b.input(down)?, all[0].as_ref())?);
        }
        if b.wants(down) {
            all[down] = Some(of_weights(b.cx, &of_low, b.input(0)?)?);
        }
    }
    Ok(all)
}

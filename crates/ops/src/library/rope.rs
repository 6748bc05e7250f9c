//! Rotary position embedding (arXiv 2104.09864).

use windlass_tensor::{DType, Tensor};

use crate::op::Input;
use crate::survey::{Fill, Kind, Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Reads, Tolerance};

/// Rotates pairs of each head's values by angles that grow with the position.
pub static ROPE: Op = Op {
    name: "rope",
    about: "pairs of each head's first values turned by position * frequency; the rest as they are",
    // Angles per position and pair are `position * frequencies[pair]`; cosine and sine are multiplied by `factor`. Token
    // `i` is at `positions[i]`, or at `start + i`.
    inputs: &[Input::new("x"), Input::new("frequencies"), Input::optional("positions")],
    attributes: &[
        Attribute::required("head_dim"),
        Attribute::int("start", 0),
        Attribute::float("factor", 1.0),
        // Whether the two values of a pair stand side by side, or half of the rotated part apart.
        Attribute::bool("interleaved", false),
        // Whether angles are taken backwards: what flows back.
        Attribute::bool("inverse", false),
    ],
    outputs: |q| {
        let (x, dim) = (q.shape(0)?, q.int("head_dim")?);
        let pairs = q.input(1)?.shape().values();
        let [_, width] = x else { return q.fail(format!("x must be [tokens, heads * head_dim], not {x:?}")) };
        if dim == 0 || width % dim != 0 || 2 * pairs > dim {
            return q.fail(format!("rows of {width} values are not heads of {dim} with {pairs} pairs that turn"));
        }
        let tokens = x.first().copied().unwrap_or(0);
        if let Some(positions) = q.inputs.get(2).filter(|p| p.shape().dims() != [tokens]) {
            return q.fail(format!("positions must be [{tokens}], not {:?}", positions.shape()));
        }
        Ok(vec![q.like(0)?])
    },
    reference,
    gradient: Gradient::rule(
        |_, _| Reads::inputs_from(1),
        |b| {
            let mut inputs = vec![b.gradient()?];
            inputs.extend((1..b.inputs.len()).map(|i| b.input(i)).collect::<Result<Vec<_>, Error>>()?);
            let back = Attributes::clone(b.attributes).bool("inverse", !b.inquiry().bool("inverse")?);
            b.only(b.cx.one(&ROPE, &inputs, &back)?)
        },
    ),
    tolerance: Tolerance { relative: 1e-5, absolute: 2e-5 },
    profiles: |_| {
        let how = |interleaved: bool| {
            Attributes::new()
                .int("head_dim", 16)
                .int("start", 700)
                .float("factor", 1.1)
                .bool("interleaved", interleaved)
        };
        let frequencies = |pairs| Sample::normal(&[pairs]).fill(Fill::Between(1e-4, 1.0)).kind(Kind::Fixed(DType::F32));
        vec![
            Profile::new("halves").normal(&[5, 48]).with(frequencies(8)).attributes(how(false)),
            Profile::new("pairs").normal(&[5, 48]).with(frequencies(8)).attributes(how(true)),
            Profile::new("backwards").normal(&[5, 48]).with(frequencies(8)).attributes(how(true).bool("inverse", true)),
            Profile::new("positions")
                .normal(&[5, 48])
                .with(frequencies(8))
                .with(Sample::normal(&[5]).fill(Fill::Steps(3)).kind(Kind::Fixed(DType::I64)))
                .attributes(how(false)),
            Profile::new("partial").normal(&[3, 32]).with(frequencies(5)).attributes(how(false)),
        ]
    },
};

fn reference(args: &mut Args) -> Result<(), Error> {
    let (mut x, frequencies) = (args.numbers(0)?, args.numbers(1)?);
    let q = args.inquiry();
    let (dim, start) = (q.int("head_dim")?, q.int("start")?);
    let (factor, interleaved, sign) =
        (q.float("factor")?, q.bool("interleaved")?, if q.bool("inverse")? { -1.0 } else { 1.0 });
    let positions = if args.inputs.len() > 2 { Some(args.ints(2)?) } else { None };
    let pairs = frequencies.len();
    for (token, row) in x.chunks_exact_mut(args.inputs[0].shape().columns().max(1)).enumerate() {
        let position = positions.as_ref().map_or((start + token) as f64, |p| p[token] as f64);
        for head in row.chunks_exact_mut(dim) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (sign * position * frequency).sin_cos();
                let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let (a, b) = (head[first], head[second]);
                head[first] = (a * cos - b * sin) * factor;
                head[second] = (b * cos + a * sin) * factor;
            }
        }
    }
    args.write_numbers(0, &x)
}

/// How a model rotates.
#[derive(Clone, Debug)]
pub struct Rope {
    pub head_dim: usize,
    /// One for each pair that turns: radians per position.
    pub frequencies: Tensor,
    pub factor: f32,
    pub interleaved: bool,
}

/// Rotates `x` `[tokens, heads * head_dim]`, whose first token is at position `start`.
pub fn rope(cx: &Context, x: &Tensor, how: &Rope, start: usize) -> Result<Tensor, Error> {
    let attributes = Attributes::new()
        .int("head_dim", how.head_dim)
        .int("start", start)
        .float("factor", how.factor.into())
        .bool("interleaved", how.interleaved);
    cx.one(&ROPE, &[x, &how.frequencies], &attributes)
}

//! Picking values: those at places given by several tensors, those that are in a set, and some at random.

use windlass_runtime::random::Philox;
use windlass_tensor::{DType, Tensor};

use super::axis::{coordinates, flat};
use super::movement::place;
use super::{INDEX_ADD, elementwise, elementwise_with};
use crate::elementwise::common_shape;
use crate::op::{Input, OutputSpec};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Reads, Tolerance, zeros};

/// Values at places that a tensor for each of the first dimensions gives.
pub static INDEX: Op = Op {
    name: "index",
    about: "y[i..] = x[a[i..], b[i..], ..]: places along the first dimensions, from indices stretched to one shape",
    inputs: &[Input::new("x"), Input::many("indices")],
    attributes: &[],
    outputs: |q| {
        let (x, indices) = (q.shape(0)?, &q.inputs[1..]);
        let shapes: Vec<&[usize]> = indices.iter().map(|index| index.shape().dims()).collect();
        let (Some(mut shape), true) = (common_shape(&shapes), !indices.is_empty() && indices.len() <= x.len()) else {
            return q.fail(format!("indices {shapes:?} do not go with x {x:?}"));
        };
        shape.extend(&x[indices.len()..]);
        Ok(vec![OutputSpec::new(q.like(0)?.dtype, shape)])
    },
    reference: |args| {
        let (rows, x) = (rows(args)?, args.inputs[0].shape().to_vec());
        let depth = args.inputs.len() - 1;
        let inner: usize = x[depth..].iter().product();
        let shape = args.outputs[0].shape().to_vec();
        place(args, 0, |at| {
            let whole = flat(&shape, at);
            let source = rows[whole / inner.max(1)] * inner + whole % inner.max(1);
            *at = coordinates_of(&x, source);
            Some(0)
        })
    },
    gradient: Gradient::rule(
        |_, _| Reads::inputs_from(1),
        |b: &Backward| {
            let (g, x) = (b.gradient()?, b.shape(0));
            let indices: Vec<&Tensor> = (1..b.inputs.len()).map(|i| b.input(i)).collect::<Result<_, Error>>()?;
            let inner: usize = x[indices.len()..].iter().product();
            let total: usize = x[..indices.len()].iter().product();
            let places = flat_rows(b, &indices, x)?;
            let rows = g.contiguous()?.reshape([places.shape().values(), inner])?;
            let zero = zeros(g.element().dtype().unwrap_or(DType::F32), [total, inner])?;
            let flowed = b.cx.one(&INDEX_ADD, &[&zero, &places, &rows], &Attributes::NONE)?;
            b.only(flowed.reshape(x.to_vec())?)
        },
    ),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            Profile::new("rows").normal(&[7, 5]).below(7, &[4]),
            Profile::new("pairs").normal(&[7, 5, 3]).below(7, &[4, 2]).below(5, &[2]),
        ]
    },
};

/// Which values are in a set.
pub static ISIN: Op = Op {
    name: "isin",
    about: "whether each value of x is one of y",
    inputs: &[Input::new("x"), Input::new("y")],
    attributes: &[],
    outputs: |q| Ok(vec![OutputSpec::new(DType::Bool, q.shape(0)?)]),
    reference: |args| {
        let (x, y) = (args.numbers(0)?, args.numbers(1)?);
        let values: Vec<f64> = x.iter().map(|x| f64::from(u8::from(y.contains(x)))).collect();
        args.write_numbers(0, &values)
    },
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let below = |shape: &[usize]| Sample::normal(shape).fill(Fill::Below(9));
        vec![Profile::new("few").with(below(&[3, 17])).with(below(&[4]))]
    },
};

/// Places drawn at random, by their weights.
pub static MULTINOMIAL: Op = Op {
    name: "multinomial",
    about: "count places of each row of weights x, drawn in proportion to them",
    inputs: &[Input::new("x")],
    attributes: &[
        Attribute::required("count"),
        Attribute::bool("replacement", false),
        Attribute::int("seed", 0),
        Attribute::int("counter", 0),
    ],
    outputs: |q| {
        let (x, count) = (q.shape(0)?, q.int("count")?);
        let Some((columns, outer)) = x.split_last() else { return q.fail("x is a single number") };
        if !q.bool("replacement")? && count > *columns {
            return q.fail(format!("{count} of {columns} places cannot be drawn without replacement"));
        }
        Ok(vec![OutputSpec::new(DType::I64, [outer, &[count]].concat())])
    },
    reference: multinomial,
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let weights = || Profile::new("drawn").with(Sample::normal(&[3, 33]).fill(Fill::Between(0.0, 1.0)));
        let again = Attributes::new().int("count", 40).bool("replacement", true).int("seed", 7);
        vec![weights().attributes(Attributes::new().int("count", 5)), weights().attributes(again)]
    },
};

fn multinomial(args: &mut Args) -> Result<(), Error> {
    let (x, q) = (args.numbers(0)?, args.inquiry());
    let (count, columns) = (q.int("count")?, args.inputs[0].shape().columns().max(1));
    let mut random = Philox::at(q.signed("seed")? as u64, q.int("counter")? as u128);
    let replacement = q.bool("replacement")?;
    let mut places = Vec::new();
    for row in x.chunks_exact(columns) {
        let total: f64 = row.iter().sum();
        let possible = row.iter().filter(|w| **w > 0.0).count();
        let valid = row.iter().all(|w| *w >= 0.0) && total.is_finite() && possible > 0;
        if !valid || (!replacement && possible < count) {
            return q.fail(format!("weights must be numbers from 0 up, {count} of them above it"));
        }
        let mut uniform = vec![0.0f32; if replacement { count } else { columns }];
        random.fill_uniform(&mut uniform);
        if replacement {
            places.extend(uniform.iter().map(|u| below(row, f64::from(*u) * total)));
            continue;
        }
        // The first of exponential waiting times comes in proportion to its rate, and so does the next of the rest.
        let waits = row.iter().zip(&uniform).map(|(w, u)| -(1.0 - f64::from(*u)).ln() / w);
        let mut order: Vec<(f64, usize)> = waits.zip(0..).filter(|(_, at)| row[*at] > 0.0).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        places.extend(order.into_iter().take(count).map(|(_, at)| at as f64));
    }
    args.write_numbers(0, &places)
}

/// The first place at which the weights up to it exceed `share`.
fn below(row: &[f64], share: f64) -> f64 {
    let mut sum = 0.0;
    let found = row.iter().position(|weight| {
        sum += weight;
        sum > share
    });
    let last = row.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    found.unwrap_or(last) as f64
}

/// For each place of the indices, the row of x that it names, counted over the indexed dimensions.
fn rows(args: &Args) -> Result<Vec<usize>, Error> {
    let (q, x) = (args.inquiry(), args.inputs[0].shape().to_vec());
    let shapes: Vec<&[usize]> = args.inputs[1..].iter().map(|index| index.shape().dims()).collect();
    let common = common_shape(&shapes).unwrap_or_default();
    let mut rows = vec![0usize; common.iter().product()];
    for (dimension, length) in x.iter().enumerate().take(shapes.len()) {
        let (all, shape) = (args.ints(dimension + 1)?, shapes[dimension]);
        for (row, at) in rows.iter_mut().zip(coordinates(&common)) {
            let own: Vec<usize> = at[common.len() - shape.len()..]
                .iter()
                .zip(shape)
                .map(|(at, dim)| if *dim == 1 { 0 } else { *at })
                .collect();
            let index = all[flat(shape, &own)];
            let index = if index < 0 { index + *length as i64 } else { index };
            match usize::try_from(index).ok().filter(|index| index < length) {
                Some(index) => *row = *row * length + index,
                None => return q.fail(format!("{index} is not a place among {length}")),
            }
        }
    }
    Ok(rows)
}

/// The rows that the indices of a call name, as a tensor of numbers.
fn flat_rows(b: &Backward, indices: &[&Tensor], x: &[usize]) -> Result<Tensor, Error> {
    let cx = b.cx;
    let mut rows: Option<Tensor> = None;
    for (index, length) in indices.iter().zip(x) {
        let double = super::cast(cx, index, DType::F64)?;
        let below = elementwise(cx, "lt", &[&double, &Tensor::from_slice(&[0.0f64], [1])?])?;
        let more = Attributes::new().float("by", *length as f64);
        let wrapped = elementwise_with(cx, "scale", &[&super::cast(cx, &below, DType::F64)?], &more)?;
        let double = elementwise(cx, "add", &[&double, &wrapped])?;
        rows = Some(match rows {
            None => double,
            Some(rows) => elementwise(cx, "add", &[&elementwise_with(cx, "scale", &[&rows], &more)?, &double])?,
        });
    }
    let rows = rows.map_or_else(|| b.fail("there are no indices"), Ok)?;
    let count = rows.shape().values();
    super::cast(cx, &rows.contiguous()?.reshape([count])?, DType::I64)
}

fn coordinates_of(shape: &[usize], flat: usize) -> Vec<usize> {
    let mut rest = flat;
    let mut at = vec![0; shape.len()];
    for (at, dim) in at.iter_mut().zip(shape).rev() {
        (*at, rest) = (rest % dim, rest / dim);
    }
    at
}

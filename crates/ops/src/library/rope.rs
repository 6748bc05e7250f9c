//! Rotary position embedding (arXiv 2104.09864).

use windlass_tensor::{DType, Tensor};

use crate::op::Input;
use crate::survey::{Fill, Kind, Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Tolerance};

/// Rotates pairs of each head's values by angles that grow with the position.
pub static ROPE: Op = Op {
    name: "rope",
    about: "pairs of each head's first values turned by position * frequency; the rest as they are",
    // Angles per position and pair are `position * frequencies[pair]`; cosine and sine are multiplied by `factor`.
    inputs: &[Input::new("x"), Input::new("frequencies")],
    attributes: &[
        Attribute::required("head_dim"),
        Attribute::int("start", 0),
        Attribute::float("factor", 1.0),
        // Whether the two values of a pair stand side by side, or half of the rotated part apart.
        Attribute::bool("interleaved", false),
    ],
    outputs: |q| {
        let (x, dim) = (q.shape(0)?, q.int("head_dim")?);
        let pairs = q.input(1)?.shape().values();
        let [_, width] = x else { return q.fail(format!("x must be [tokens, heads * head_dim], not {x:?}")) };
        if dim == 0 || width % dim != 0 || 2 * pairs > dim {
            return q.fail(format!("rows of {width} values are not heads of {dim} with {pairs} pairs that turn"));
        }
        Ok(vec![q.like(0)?])
    },
    reference,
    gradient: Gradient::Stops,
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
            Profile::new("partial").normal(&[3, 32]).with(frequencies(5)).attributes(how(false)),
        ]
    },
};

fn reference(args: &mut Args) -> Result<(), Error> {
    let (mut x, frequencies) = (args.f32s(0)?.into_owned(), args.f32s(1)?);
    let q = args.inquiry();
    let (dim, start) = (q.int("head_dim")?, q.int("start")?);
    let (factor, interleaved) = (q.float("factor")?, q.bool("interleaved")?);
    let pairs = frequencies.len();
    for (token, row) in x.chunks_exact_mut(args.inputs[0].shape().columns().max(1)).enumerate() {
        let position = (start + token) as f64;
        for head in row.chunks_exact_mut(dim) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
                let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                head[first] = ((a * cos - b * sin) * factor) as f32;
                head[second] = ((b * cos + a * sin) * factor) as f32;
            }
        }
    }
    args.write(0, &x)
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

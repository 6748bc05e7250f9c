//! Products of matrices.

use windlass_tensor::Tensor;

use super::axis::{coordinates, flat};
use super::scale;
use crate::elementwise::common_shape;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-4 };

/// A product of matrices; dimensions before the last two are stretched to a common shape.
pub static MATMUL: Op = Op {
    name: "matmul",
    about: "x [.., n, k] times y [.., k, m]",
    inputs: &[Input::new("x"), Input::new("y")],
    attributes: &[],
    outputs: |q| Ok(vec![OutputSpec::new(q.like(0)?.dtype, product(q, 0, 1)?)]),
    reference: |args| {
        let values = multiply(args, 0, 1)?;
        args.write_numbers(0, &values)
    },
    gradient: Gradient::rule(|_, input| Reads::input(1 - input), |b| products(b, 0, b.gradient()?.clone())),
    tolerance: TOLERANCE,
    profiles: |_| {
        vec![
            Profile::new("odd").normal(&[3, 17]).normal(&[17, 5]),
            Profile::new("stretched").normal(&[2, 1, 3, 9]).normal(&[4, 9, 2]),
            Profile::new("views").with(Sample::normal(&[5, 33]).strided()).with(Sample::normal(&[33, 6]).strided()),
            Profile::new("square").normal(&[65, 65]).normal(&[65, 65]),
        ]
    },
};

/// Products of as many pairs of matrices.
pub static BMM: Op = Op {
    name: "bmm",
    about: "x [b, n, k] times y [b, k, m]",
    inputs: &[Input::new("x"), Input::new("y")],
    attributes: &[],
    outputs: |q| match (q.shape(0)?, q.shape(1)?) {
        ([a, _, _], [b, _, _]) if a == b => Ok(vec![OutputSpec::new(q.like(0)?.dtype, product(q, 0, 1)?)]),
        (x, y) => q.fail(format!("expected [b, n, k] and [b, k, m], found {x:?} and {y:?}")),
    },
    reference: MATMUL.reference,
    gradient: MATMUL.gradient,
    tolerance: TOLERANCE,
    profiles: |_| {
        vec![
            Profile::new("odd").normal(&[3, 5, 17]).normal(&[3, 17, 7]),
            Profile::new("one").normal(&[1, 1, 1]).normal(&[1, 1, 1]),
        ]
    },
};

/// A product of matrices, added to something.
pub static ADDMM: Op = Op {
    name: "addmm",
    about: "beta * c + alpha * (x y), c stretched to [n, m]",
    inputs: &[Input::new("c"), Input::new("x"), Input::new("y")],
    attributes: &[Attribute::float("alpha", 1.0), Attribute::float("beta", 1.0)],
    outputs: |q| {
        let shape = product(q, 1, 2)?;
        if common_shape(&[&shape, q.shape(0)?]).as_ref() != Some(&shape) {
            return q.fail(format!("{:?} cannot be stretched to {shape:?}", q.shape(0)?));
        }
        Ok(vec![OutputSpec::new(q.like(0)?.dtype, shape)])
    },
    reference: |args| {
        let (alpha, beta) = (args.inquiry().float("alpha")?, args.inquiry().float("beta")?);
        let stretched = args.inputs[0].broadcast_to(args.outputs[0].shape().to_vec())?;
        let c = crate::args::numbers(args.op, &stretched)?;
        let mut values = multiply(args, 1, 2)?;
        values.iter_mut().zip(c).for_each(|(v, c)| *v = alpha * *v + beta * c);
        args.write_numbers(0, &values)
    },
    gradient: Gradient::rule(
        |_, input| match input {
            0 => Reads::NOTHING,
            _ => Reads::input(3 - input),
        },
        |b| {
            let scaled = |name| scale(b.cx, b.gradient()?.clone(), b.inquiry().float(name)?);
            let mut all = products(b, 1, scaled("alpha")?)?;
            all.insert(0, if b.wants(0) { Some(b.unstretched(scaled("beta")?, 0)?) } else { None });
            Ok(all)
        },
    ),
    tolerance: TOLERANCE,
    profiles: |_| {
        let how = Attributes::new().float("alpha", 0.5).float("beta", 2.0);
        vec![
            Profile::new("matrix").normal(&[3, 5]).normal(&[3, 17]).normal(&[17, 5]).attributes(how),
            Profile::new("row").normal(&[5]).normal(&[3, 17]).normal(&[17, 5]),
        ]
    },
};

/// The gradients of the two matrices from input `first` on, of their product's.
fn products(b: &Backward, first: usize, gradient: Tensor) -> Result<Vec<Option<Tensor>>, Error> {
    let turned = |t: &Tensor| Ok::<_, Error>(t.transpose(t.shape().rank() - 2, t.shape().rank() - 1)?);
    let mut all = vec![None, None];
    if b.wants(first) {
        all[0] = Some(b.unstretched(matmul(b.cx, &gradient, &turned(b.input(first + 1)?)?)?, first)?);
    }
    if b.wants(first + 1) {
        all[1] = Some(b.unstretched(matmul(b.cx, &turned(b.input(first)?)?, &gradient)?, first + 1)?);
    }
    Ok(all)
}

fn product(q: &Inquiry, x: usize, y: usize) -> Result<Vec<usize>, Error> {
    let (x, y) = (q.shape(x)?, q.shape(y)?);
    let ([x_outer @ .., n, k], [y_outer @ .., l, m]) = (x, y) else {
        return q.fail(format!("expected two matrices, found {x:?} and {y:?}"));
    };
    let outer = common_shape(&[x_outer, y_outer]).filter(|_| k == l);
    let Some(mut shape) = outer else { return q.fail(format!("{x:?} and {y:?} cannot be multiplied")) };
    shape.extend([*n, *m]);
    Ok(shape)
}

fn multiply(args: &Args, x: usize, y: usize) -> Result<Vec<f64>, Error> {
    let q = args.inquiry();
    let shape = product(&q, x, y)?;
    let (outer, [n, m]) = (&shape[..shape.len() - 2], [shape[shape.len() - 2], shape[shape.len() - 1]]);
    let k = q.shape(x)?.last().copied().unwrap_or(0);
    let (xs, ys) = (args.numbers(x)?, args.numbers(y)?);
    // Where the matrix of a batch begins in an operand, whose dimensions of 1 are stretched.
    let begin = |operand: &[usize], at: &[usize], size: usize| {
        let own = &operand[..operand.len() - 2];
        let at: Vec<usize> =
            own.iter().zip(&at[at.len() - own.len()..]).map(|(d, i)| if *d == 1 { 0 } else { *i }).collect();
        flat(own, &at) * size
    };
    let mut values = Vec::with_capacity(shape.iter().product());
    for at in coordinates(outer) {
        let (a, b) = (begin(q.shape(x)?, &at, n * k), begin(q.shape(y)?, &at, k * m));
        let dot = |i: usize, j: usize| (0..k).map(|l| xs[a + i * k + l] * ys[b + l * m + j]).sum::<f64>();
        values.extend((0..n).flat_map(|i| (0..m).map(move |j| (i, j))).map(|(i, j)| dot(i, j)));
    }
    Ok(values)
}

/// See [`MATMUL`].
pub fn matmul(cx: &Context, x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
    cx.one(&MATMUL, &[x, y], &Attributes::NONE)
}

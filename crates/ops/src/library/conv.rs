//! Convolutions in one and two dimensions, and transposed ones.

use windlass_tensor::Tensor;

use super::window::{DILATION, PADDING, STRIDE, Window, along};
use super::{SUM, axis};
use crate::attributes::Value;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Reads, Tolerance};

const GROUPS: Attribute = Attribute::int("groups", 1);
const INPUTS: &[Input] = &[Input::new("x"), Input::new("weight"), Input::optional("bias")];
const FORWARD: &[Attribute] = &[STRIDE, PADDING, DILATION, GROUPS];
const TRANSPOSED: &[Attribute] = &[STRIDE, PADDING, DILATION, GROUPS, Attribute::int("output_padding", 0)];

/// Convolutions: constant, name, formula, inner dimensions.
macro_rules! convolutions {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal $rank:literal $attributes:ident $outputs:ident
        $reference:ident $gradient:ident $profiles:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: INPUTS,
                attributes: $attributes,
                outputs: |q| $outputs(q, $rank),
                reference: $reference,
                gradient: Gradient::rule(|_, input| reads(input), $gradient),
                tolerance: Tolerance { relative: 1e-5, absolute: 2e-5 },
                profiles: |_| $profiles,
            };
        )*
    };
}

convolutions! {
    /// Sums over windows of a sequence.
    CONV1D "conv1d" "x [n, c, l] with weight [o, c / groups, k], plus bias [o]" 1 FORWARD outputs forward gradient vec![
        case("plain", &[2, 3, 17], &[4, 3, 3], how(1, 0, 1, 1)).normal(&[4]),
        case("strided", &[1, 4, 40], &[6, 2, 5], how(2, 3, 2, 2)),
        case("each channel", &[2, 8, 33], &[8, 1, 4], how(1, 3, 1, 8)),
    ];
    /// Sums over windows of an image.
    CONV2D "conv2d" "x [n, c, h, w] with weight [o, c / groups, k, l], plus bias [o]" 2 FORWARD outputs forward gradient vec![
        case("plain", &[2, 3, 9, 11], &[5, 3, 3, 3], how(1, 1, 1, 1)).normal(&[5]),
        case("strided", &[1, 4, 13, 10], &[6, 2, 3, 2], how(2, 1, 2, 2)).normal(&[6]),
        case("points", &[1, 16, 6, 7], &[9, 16, 1, 1], how(1, 0, 1, 1)),
        case("patches", &[1, 3, 16, 16], &[7, 3, 8, 8], how(8, 0, 1, 1)),
    ];
    /// What flows back through a convolution, as an op of its own: every value is spread over a window.
    CONV_TRANSPOSE1D "conv_transpose1d" "x [n, c, l] spread by weight [c, o / groups, k], plus bias [o]" 1
        TRANSPOSED transposed_outputs transposed transposed_gradient vec![
        case("plain", &[2, 3, 9], &[3, 4, 3], how(1, 0, 1, 1)).normal(&[4]),
        case("strided", &[1, 4, 11], &[4, 3, 4], how(3, 1, 1, 2).int("output_padding", 2)),
    ];
    /// As [`CONV_TRANSPOSE1D`], of an image.
    CONV_TRANSPOSE2D "conv_transpose2d" "x [n, c, h, w] spread by weight [c, o / groups, k, l], plus bias [o]" 2
        TRANSPOSED transposed_outputs transposed transposed_gradient vec![
        case("plain", &[2, 3, 5, 6], &[3, 4, 3, 2], how(1, 1, 1, 1)).normal(&[4]),
        case("strided", &[1, 4, 5, 4], &[4, 3, 3, 3], how(2, 1, 2, 2).int("output_padding", 1)),
    ];
}

/// The gradient of a convolution for its weight.
pub static CONV_WEIGHT_GRADIENT: Op = Op {
    name: "conv_weight_gradient",
    about: "for a convolution of x with a weight of `kernel`: the sum of x times what flowed back, over all windows",
    inputs: &[Input::new("x"), Input::new("gradient")],
    attributes: &[STRIDE, PADDING, DILATION, GROUPS, Attribute::required("kernel")],
    outputs: |q| {
        let (x, gradient) = (q.shape(0)?, q.shape(1)?);
        let rank = x.len().saturating_sub(2);
        if !(1..=2).contains(&rank) || gradient.len() != x.len() || gradient[0] != x[0] {
            return q.fail(format!("x {x:?} and gradient {gradient:?} are not of a convolution"));
        }
        let groups = groups(q, x[1], gradient[1])?;
        let mut shape = vec![gradient[1], x[1] / groups];
        for i in 0..rank {
            let kernel = along(q, "kernel", i, rank)?;
            let windows = Window::of(q, i, rank, kernel)?.count(x[2 + i], false);
            // What a transposed convolution padded may have room for one more.
            if windows.is_none_or(|windows| windows < gradient[2 + i]) {
                return q.fail(format!("{} values have fewer than {} windows of {kernel}", x[2 + i], gradient[2 + i]));
            }
            shape.push(kernel);
        }
        Ok(vec![OutputSpec::new(q.like(0)?.dtype, shape)])
    },
    reference: |args| {
        let (x, gradient) = (args.numbers(0)?, args.numbers(1)?);
        let (x_shape, y_shape) = (args.inputs[0].shape().to_vec(), args.inputs[1].shape().to_vec());
        let weight_shape = args.outputs[0].shape().to_vec();
        let geometry = Geometry::of(&args.inquiry(), &x_shape, &weight_shape, &y_shape)?;
        let mut weight = vec![0.0; weight_shape.iter().product()];
        geometry.visit(|x_at, w_at, y_at| weight[w_at] += x[x_at] * gradient[y_at]);
        args.write_numbers(0, &weight)
    },
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance { relative: 1e-5, absolute: 5e-5 },
    profiles: |_| {
        let of = |name, x: &[usize], y: &[usize], attributes: Attributes| {
            Profile::new(name).normal(x).normal(y).attributes(attributes)
        };
        vec![
            of("sequence", &[2, 3, 17], &[2, 4, 15], how(1, 0, 1, 1).int("kernel", 3)),
            of("image", &[2, 4, 9, 8], &[2, 6, 5, 4], how(2, 1, 1, 2).ints("kernel", &[3, 2])),
        ]
    },
};

/// Where the values of a convolution meet. In one dimension the height is 1.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group, of x and of y.
    pub inside: usize,
    pub outside: usize,
    pub windows: [Window; 2],
    /// Height and width of x and of y.
    pub x: [usize; 2],
    pub y: [usize; 2],
}

impl Geometry {
    /// Of `x` `[n, c, ..]`, a weight `[o, c / groups, ..]` and `y` `[n, o, ..]`, whose shapes were checked.
    pub fn of(q: &Inquiry, x: &[usize], weight: &[usize], y: &[usize]) -> Result<Geometry, Error> {
        let (rank, groups) = (x.len().saturating_sub(2), q.int("groups")?.max(1));
        let one = Window { kernel: 1, stride: 1, padding: 0, dilation: 1 };
        let plane = |shape: &[usize]| if rank == 1 { [1, shape[2]] } else { [shape[2], shape[3]] };
        let windows = match rank {
            1 => [one, Window::of(q, 0, 1, weight[2])?],
            _ => [Window::of(q, 0, 2, weight[2])?, Window::of(q, 1, 2, weight[3])?],
        };
        let (inside, outside) = (weight[1], weight[0] / groups);
        Ok(Geometry { batch: x[0], groups, inside, outside, windows, x: plane(x), y: plane(y) })
    }

    /// Calls `meet` with the places in x, weight and y of all values that belong together.
    fn visit(&self, mut meet: impl FnMut(usize, usize, usize)) {
        let [high, wide] = self.windows;
        for image in 0..self.batch * self.groups {
            let (x_image, y_image) = (image * self.inside, image * self.outside);
            let group = image % self.groups.max(1);
            for o in 0..self.outside {
                for c in 0..self.inside {
                    let weight = ((group * self.outside + o) * self.inside + c) * high.kernel * wide.kernel;
                    for y_place in 0..self.y[0] * self.y[1] {
                        let (row, column) = (y_place / self.y[1], y_place % self.y[1]);
                        for tap in 0..high.kernel * wide.kernel {
                            let at = high.place(row, tap / wide.kernel, self.x[0]);
                            let Some(x_row) = at else { continue };
                            let at = wide.place(column, tap % wide.kernel, self.x[1]);
                            let Some(x_column) = at else { continue };
                            let x = ((x_image + c) * self.x[0] + x_row) * self.x[1] + x_column;
                            meet(x, weight + tap, (y_image + o) * self.y[0] * self.y[1] + y_place);
                        }
                    }
                }
            }
        }
    }
}

fn groups(q: &Inquiry, inside: usize, outside: usize) -> Result<usize, Error> {
    match q.int("groups")? {
        groups if groups > 0 && inside.is_multiple_of(groups) && outside.is_multiple_of(groups) => Ok(groups),
        groups => q.fail(format!("{inside} and {outside} channels do not make {groups} groups")),
    }
}

/// Refuses shapes of other than `rank` inner dimensions, or a bias of other than `channels` values.
fn check(q: &Inquiry, rank: usize, channels: usize) -> Result<(), Error> {
    let (x, weight) = (q.shape(0)?, q.shape(1)?);
    if x.len() != rank + 2 || weight.len() != rank + 2 {
        return q.fail(format!("x and weight have {} dimensions, not {x:?} and {weight:?}", rank + 2));
    }
    match q.inputs.get(2).filter(|bias| bias.shape().dims() != [channels]) {
        Some(bias) => q.fail(format!("the bias must have {channels} values, not {:?}", bias.shape())),
        None => Ok(()),
    }
}

fn outputs(q: &Inquiry, rank: usize) -> Result<Vec<OutputSpec>, Error> {
    let (x, weight) = (q.shape(0)?, q.shape(1)?);
    check(q, rank, weight.first().copied().unwrap_or(0))?;
    let groups = groups(q, x[1], weight[0])?;
    if weight[1] * groups != x[1] {
        return q.fail(format!("x has {} channels, the weight takes {} in {groups} groups", x[1], weight[1] * groups));
    }
    let mut shape = vec![x[0], weight[0]];
    for i in 0..rank {
        let Some(count) = Window::of(q, i, rank, weight[2 + i])?.count(x[2 + i], false) else {
            return q.fail(format!("a window of {} does not fit in {} values", weight[2 + i], x[2 + i]));
        };
        shape.push(count);
    }
    Ok(vec![OutputSpec::new(q.like(0)?.dtype, shape)])
}

fn transposed_outputs(q: &Inquiry, rank: usize) -> Result<Vec<OutputSpec>, Error> {
    let (x, weight) = (q.shape(0)?, q.shape(1)?);
    let groups = q.int("groups")?.max(1);
    check(q, rank, weight.get(1).copied().unwrap_or(0) * groups)?;
    if weight[0] != x[1] || x[1] % groups != 0 {
        return q.fail(format!("x has {} channels, the weight takes {} in {groups} groups", x[1], weight[0]));
    }
    let mut shape = vec![x[0], weight[1] * groups];
    for i in 0..rank {
        let (window, more) = (Window::of(q, i, rank, weight[2 + i])?, along(q, "output_padding", i, rank)?);
        if more >= window.stride.max(window.dilation) {
            return q.fail(format!("output_padding {more} is not less than the stride or the dilation"));
        }
        let spread = x[2 + i].saturating_sub(1).saturating_mul(window.stride).saturating_add(window.reach() + more);
        let Some(length) = spread.checked_sub(2 * window.padding).filter(|length| *length > 0 && x[2 + i] > 0) else {
            return q.fail(format!("nothing is left of {spread} values without padding of {}", window.padding));
        };
        shape.push(length);
    }
    Ok(vec![OutputSpec::new(q.like(0)?.dtype, shape)])
}

fn forward(args: &mut Args) -> Result<(), Error> {
    let (x, weight) = (args.numbers(0)?, args.numbers(1)?);
    let y_shape = args.outputs[0].shape().to_vec();
    let geometry = Geometry::of(&args.inquiry(), args.inputs[0].shape(), args.inputs[1].shape(), &y_shape)?;
    let mut y = biased(args, &y_shape)?;
    geometry.visit(|x_at, w_at, y_at| y[y_at] += x[x_at] * weight[w_at]);
    args.write_numbers(0, &y)
}

fn transposed(args: &mut Args) -> Result<(), Error> {
    let (x, weight) = (args.numbers(0)?, args.numbers(1)?);
    let y_shape = args.outputs[0].shape().to_vec();
    // The convolution whose output is x.
    let geometry = Geometry::of(&args.inquiry(), &y_shape, args.inputs[1].shape(), args.inputs[0].shape())?;
    let mut y = biased(args, &y_shape)?;
    geometry.visit(|y_at, w_at, x_at| y[y_at] += x[x_at] * weight[w_at]);
    args.write_numbers(0, &y)
}

/// An output that has the bias everywhere.
fn biased(args: &Args, shape: &[usize]) -> Result<Vec<f64>, Error> {
    let bias = if args.inputs.len() > 2 { args.numbers(2)? } else { vec![0.0; shape[1]] };
    Ok(axis::coordinates(shape).map(|at| bias[at[1]]).collect())
}

const fn reads(input: usize) -> Reads {
    match input {
        0 => Reads::input(1),
        1 => Reads::input(0),
        _ => Reads::NOTHING,
    }
}

type Flowed = Result<Vec<Option<Tensor>>, Error>;

fn gradient(b: &Backward) -> Flowed {
    let (g, rank) = (b.gradient()?, b.shape(0).len() - 2);
    let mut all = bias_gradient(b)?;
    if b.wants(0) {
        // What the stride left over at the end has no window, and gets zeros.
        let weight = b.input(1)?;
        let mut more = Vec::new();
        for i in 0..rank {
            let window = Window::of(&b.inquiry(), i, rank, weight.shape()[2 + i])?;
            let reached = (g.shape()[2 + i] - 1) * window.stride + window.reach();
            more.push((b.shape(0)[2 + i] + 2 * window.padding) as i64 - reached as i64);
        }
        let op = if rank == 1 { &CONV_TRANSPOSE1D } else { &CONV_TRANSPOSE2D };
        all[0] = Some(b.cx.one(op, &[g, weight], &b.attributes.clone().ints("output_padding", &more))?);
    }
    if b.wants(1) {
        all[1] = Some(weight_gradient(b, b.input(0)?, g)?);
    }
    Ok(all)
}

fn transposed_gradient(b: &Backward) -> Flowed {
    let (g, rank) = (b.gradient()?, b.shape(0).len() - 2);
    let mut all = bias_gradient(b)?;
    if b.wants(0) {
        let op = if rank == 1 { &CONV1D } else { &CONV2D };
        let windows = b.cx.one(op, &[g, b.input(1)?], &without(b.attributes, "output_padding"))?;
        // Where padding of the output made room for one more window than there were values.
        let cut = (0..rank).try_fold(windows, |windows, i| windows.narrow(2 + i, 0, b.shape(0)[2 + i]))?;
        all[0] = Some(cut.contiguous()?);
    }
    if b.wants(1) {
        let x = b.input(0)?;
        all[1] = Some(weight_gradient(b, g, x)?);
    }
    Ok(all)
}

fn bias_gradient(b: &Backward) -> Flowed {
    let mut all = vec![None; b.inputs.len()];
    if b.wants(2) {
        let dims: Vec<i64> = (0..b.shape(0).len() as i64).filter(|dim| *dim != 1).collect();
        all[2] = Some(b.cx.one(&SUM, &[b.gradient()?], &Attributes::new().ints("dim", &dims))?);
    }
    Ok(all)
}

fn weight_gradient(b: &Backward, x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
    let kernel: Vec<i64> = b.shape(1)[2..].iter().map(|k| *k as i64).collect();
    b.cx.one(&CONV_WEIGHT_GRADIENT, &[x, y], &without(b.attributes, "output_padding").ints("kernel", &kernel))
}

fn without(attributes: &Attributes, name: &str) -> Attributes {
    let others = attributes.iter().filter(|(other, _)| *other != name);
    others.fold(Attributes::new(), |all, (name, value)| all.with(name, value.clone()))
}

fn how(stride: i64, padding: i64, dilation: i64, groups: usize) -> Attributes {
    let one = |name, value| Attributes::new().with(name, Value::Int(value));
    one("stride", stride)
        .with("padding", Value::Int(padding))
        .with("dilation", Value::Int(dilation))
        .int("groups", groups)
}

fn case(name: &'static str, x: &[usize], weight: &[usize], attributes: Attributes) -> Profile {
    Profile::new(name).normal(x).normal(weight).attributes(attributes)
}

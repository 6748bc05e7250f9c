//! The largest values of windows.

use windlass_tensor::{DType, Tensor};

use super::SCATTER_ADD;
use super::window::{DILATION, PADDING, Window, along};
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Reads, Tolerance};

const ATTRIBUTES: &[Attribute] = &[
    Attribute::required("kernel"),
    // 0: as the kernel.
    Attribute::int("stride", 0),
    PADDING,
    DILATION,
    Attribute::bool("ceil_mode", false),
];

/// The largest value of each window of a sequence, and where it stands.
pub static MAX_POOL1D: Op = Op {
    name: "max_pool1d",
    about: "the largest value of each window of x [n, c, l], and its place in the sequence",
    inputs: &[Input::new("x")],
    attributes: ATTRIBUTES,
    outputs: |q| outputs(q, 1),
    reference,
    gradient: Gradient::rule(|_, _| Reads::output(1), gradient),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            case("plain", &[2, 3, 17], &[("kernel", &[3])]),
            case("padded", &[1, 2, 20], &[("kernel", &[5]), ("stride", &[2]), ("padding", &[2]), ("dilation", &[2])]),
        ]
    },
};

/// The largest value of each window of an image, and where it stands.
pub static MAX_POOL2D: Op = Op {
    name: "max_pool2d",
    about: "the largest value of each window of x [n, c, h, w], and its place in the plane",
    outputs: |q| outputs(q, 2),
    profiles: |_| {
        let left_over = case("left over", &[1, 2, 9, 8], &[("kernel", &[3]), ("stride", &[2]), ("padding", &[1])]);
        let attributes = left_over.attributes.clone().bool("ceil_mode", true);
        vec![
            case("plain", &[2, 3, 8, 6], &[("kernel", &[2])]),
            case("padded", &[1, 2, 9, 7], &[("kernel", &[3, 2]), ("stride", &[2, 1]), ("padding", &[1])]),
            left_over.attributes(attributes),
        ]
    },
    ..MAX_POOL1D
};

/// The windows of both dimensions of a call, the lengths of `x` and how many windows there are; one of each where there is
/// one dimension.
pub fn windows(q: &Inquiry) -> Result<[(Window, usize, usize); 2], Error> {
    let x = q.shape(0)?;
    let one = (Window { kernel: 1, stride: 1, padding: 0, dilation: 1 }, 1, 1);
    match x.len() {
        3 => Ok([one, dimension(q, 0, 1, x[2])?]),
        _ => Ok([dimension(q, 0, 2, x[2])?, dimension(q, 1, 2, x[3])?]),
    }
}

fn dimension(q: &Inquiry, index: usize, rank: usize, length: usize) -> Result<(Window, usize, usize), Error> {
    let each = |name| along(q, name, index, rank);
    let (kernel, stride) = (each("kernel")?, each("stride")?);
    let stride = if stride > 0 { stride } else { kernel };
    let window = Window { kernel, stride, padding: each("padding")?, dilation: each("dilation")? };
    if kernel == 0 || window.dilation == 0 || 2 * window.padding > kernel {
        return q.fail(format!("a kernel of {kernel} goes with padding of at most half of it, not {}", window.padding));
    }
    match window.count(length, q.bool("ceil_mode")?) {
        Some(count) => Ok((window, length, count)),
        None => q.fail(format!("a window of {kernel} does not fit in {length} values")),
    }
}

fn outputs(q: &Inquiry, rank: usize) -> Result<Vec<OutputSpec>, Error> {
    let like = q.like(0)?;
    if like.shape.len() != rank + 2 {
        return q.fail(format!("x {:?} must have {} dimensions", like.shape, rank + 2));
    }
    let counts = windows(q)?.map(|(_, _, count)| count);
    let shape: Vec<usize> = like.shape[..2].iter().chain(&counts[2 - rank..]).copied().collect();
    Ok(vec![OutputSpec::new(like.dtype, shape.clone()), OutputSpec::new(DType::I64, shape)])
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let x = args.numbers(0)?;
    let [(high, height, rows), (wide, width, columns)] = windows(&args.inquiry())?;
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for plane in x.chunks_exact((height * width).max(1)) {
        for window in 0..rows * columns {
            let (row, column) = (window / columns, window % columns);
            let mut best: Option<usize> = None;
            for tap in 0..high.kernel * wide.kernel {
                let at = high.place(row, tap / wide.kernel, height).zip(wide.place(column, tap % wide.kernel, width));
                let Some(at) = at.map(|(row, column)| row * width + column) else { continue };
                // Not a number is larger than all; the first of equal values counts.
                if best.is_none_or(|best| plane[at] > plane[best] || plane[at].is_nan() && !plane[best].is_nan()) {
                    best = Some(at);
                }
            }
            let Some(best) = best else { return args.inquiry().fail("a window has no value") };
            values.push(plane[best]);
            places.push(best as f64);
        }
    }
    args.write_numbers(0, &values)?;
    args.write_numbers(1, &places)
}

fn gradient(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (g, x, places) = (b.gradient()?, b.shape(0), b.output(1)?);
    let planes = x[0] * x[1];
    let plane: usize = x[2..].iter().product();
    let zeros = crate::zeros(g.element().dtype().unwrap_or(DType::F32), [planes, plane])?;
    let flat = |tensor: &Tensor| -> Result<Tensor, Error> {
        Ok(tensor.contiguous()?.reshape([planes, tensor.shape().values() / planes.max(1)])?)
    };
    let along_planes = Attributes::new().int("dim", 1);
    let flowed = b.cx.one(&SCATTER_ADD, &[&zeros, &flat(places)?, &flat(g)?], &along_planes)?;
    b.only(flowed.reshape(x.to_vec())?)
}

fn case(name: &'static str, x: &[usize], attributes: &[(&'static str, &[i64])]) -> Profile {
    let all = attributes.iter().fold(Attributes::new(), |all, (name, values)| all.ints(name, values));
    Profile::new(name).normal(x).attributes(all)
}

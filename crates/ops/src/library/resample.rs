//! Means over windows, and values between others: maps that are linear along each dimension by itself.

use windlass_tensor::{DType, Tensor};

use super::window::{PADDING, STRIDE, Window, along};
use super::{MATMUL, cast};
use crate::attributes::Value;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

const X: &[Input] = &[Input::new("x")];
const WINDOWS: &[Attribute] = &[
    Attribute::required("kernel"),
    // 0: as the kernel.
    Attribute::int("stride", 0),
    PADDING,
    Attribute::bool("ceil_mode", false),
    Attribute::bool("count_include_pad", true),
];
const SIZE: &[Attribute] = &[Attribute::required("size")];
const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-6 };

/// Ops of this file: constant, name, formula, inner dimensions, attributes, profiles.
macro_rules! resamplers {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal $rank:expr, $attributes:expr, $profiles:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: X,
                attributes: $attributes,
                outputs: |q| outputs(q, $rank),
                reference,
                gradient: Gradient::rule(|_, _| Reads::NOTHING, gradient),
                tolerance: TOLERANCE,
                profiles: |_| $profiles,
            };
        )*
    };
}

resamplers! {
    /// Means over windows of a sequence.
    AVG_POOL1D "avg_pool1d" "the mean of each window of x [n, c, l]" Some(1), WINDOWS, vec![
        case("plain", &[2, 3, 17], &[("kernel", &[3])]),
        case("padded", &[1, 2, 20], &[("kernel", &[5]), ("stride", &[2]), ("padding", &[2])]),
    ];
    /// Means over windows of an image.
    AVG_POOL2D "avg_pool2d" "the mean of each window of x [n, c, h, w]" Some(2), WINDOWS, vec![
        case("plain", &[2, 3, 8, 6], &[("kernel", &[2])]),
        case("padded", &[1, 2, 9, 7], &[("kernel", &[3, 2]), ("stride", &[2]), ("padding", &[1])]),
        case("left over", &[1, 2, 9, 8], &[("kernel", &[3]), ("stride", &[2]), ("padding", &[1])]).more("ceil_mode", true),
        case("without padding", &[1, 2, 9, 8], &[("kernel", &[3]), ("padding", &[1])]).more("count_include_pad", false),
    ];
    /// Means over as many windows as are wanted, about equally long.
    ADAPTIVE_AVG_POOL1D "adaptive_avg_pool1d" "the means of `size` windows of x [n, c, l]" Some(1), SIZE, vec![
        case("even", &[2, 3, 12], &[("size", &[4])]), case("odd", &[1, 2, 17], &[("size", &[5])]),
    ];
    /// As [`ADAPTIVE_AVG_POOL1D`], of an image.
    ADAPTIVE_AVG_POOL2D "adaptive_avg_pool2d" "the means of `size` windows of x [n, c, h, w]" Some(2), SIZE, vec![
        case("one", &[2, 3, 7, 5], &[("size", &[1])]), case("odd", &[1, 2, 11, 9], &[("size", &[4, 5])]),
    ];
    /// Values at places between those of x.
    INTERPOLATE "interpolate" "x [n, c, l] or [n, c, h, w] at `size` places: the nearest values, or between their neighbours"
        None, &[Attribute::required("size"), Attribute::text("mode", "nearest"), Attribute::bool("align_corners", false)], vec![
        case("nearest", &[2, 3, 7], &[("size", &[11])]),
        case("nearest image", &[1, 2, 5, 6], &[("size", &[13, 4])]),
        case("linear", &[2, 3, 7], &[("size", &[12])]).text("mode", "linear"),
        case("linear image", &[1, 2, 5, 6], &[("size", &[8, 13])]).text("mode", "linear"),
        case("corners", &[1, 2, 5, 6], &[("size", &[9, 4])]).text("mode", "linear").more("align_corners", true),
    ];
}

/// What an output takes of one dimension: inputs, with their shares.
pub type Taps = Vec<Vec<(usize, f64)>>;

/// The taps of each inner dimension of a call.
pub fn taps(q: &Inquiry) -> Result<Vec<Taps>, Error> {
    of(q, q.shape(0)?)
}

fn of(q: &Inquiry, x: &[usize]) -> Result<Vec<Taps>, Error> {
    let rank = x.len().saturating_sub(2);
    (0..rank).map(|i| dimension(q, i, rank, x[2 + i])).collect()
}

fn dimension(q: &Inquiry, index: usize, rank: usize, length: usize) -> Result<Taps, Error> {
    if q.op.attributes.iter().all(|attribute| attribute.name != "size") {
        let kernel = along(q, "kernel", index, rank)?;
        let stride = along(q, STRIDE.name, index, rank)?;
        let stride = if stride > 0 { stride } else { kernel };
        let window = Window { kernel, stride, padding: along(q, PADDING.name, index, rank)?, dilation: 1 };
        if kernel == 0 || 2 * window.padding > kernel {
            return q
                .fail(format!("a kernel of {kernel} goes with padding of at most half of it, not {}", window.padding));
        }
        return means(q, window, length);
    }
    let size = along(q, "size", index, rank)?;
    if size == 0 || length == 0 {
        return q.fail(format!("{size} places among {length} values"));
    }
    if q.op.attributes.len() == 1 {
        let range = |i: usize| i * length / size..((i + 1) * length).div_ceil(size);
        return Ok((0..size).map(|i| range(i).map(|at| (at, 1.0 / range(i).len() as f64)).collect()).collect());
    }
    match q.text("mode")? {
        "nearest" => Ok((0..size).map(|i| vec![(i * length / size, 1.0)]).collect()),
        "linear" => {
            let corners = q.bool("align_corners")?;
            Ok((0..size).map(|i| between(place(i, length, size, corners), length)).collect())
        }
        other => q.fail(format!("mode is \"nearest\" or \"linear\", not {other:?}")),
    }
}

fn means(q: &Inquiry, window: Window, length: usize) -> Result<Taps, Error> {
    let padded = q.bool("count_include_pad")?;
    let Some(count) = window.count(length, q.bool("ceil_mode")?) else {
        return q.fail(format!("a window of {} does not fit in {length} values", window.kernel));
    };
    let one = |index: usize| {
        let places: Vec<usize> = (0..window.kernel).filter_map(|tap| window.place(index, tap, length)).collect();
        // A window at the end counts no further than the padding.
        let whole = window.kernel.min(length + 2 * window.padding - index * window.stride);
        let share = 1.0 / if padded { whole } else { places.len() } as f64;
        places.into_iter().map(|at| (at, share)).collect()
    };
    Ok((0..count).map(one).collect())
}

/// Where place `index` of `size` lies among `length` values: corners meet corners, or edges edges.
fn place(index: usize, length: usize, size: usize, corners: bool) -> f64 {
    match (corners, size) {
        (true, 1) => 0.0,
        (true, _) => index as f64 * (length - 1) as f64 / (size - 1) as f64,
        (false, _) => ((index as f64 + 0.5) * length as f64 / size as f64 - 0.5).max(0.0),
    }
}

fn between(place: f64, length: usize) -> Vec<(usize, f64)> {
    let first = (place as usize).min(length - 1);
    let share = place - first as f64;
    if first + 1 < length { vec![(first, 1.0 - share), (first + 1, share)] } else { vec![(first, 1.0)] }
}

fn outputs(q: &Inquiry, rank: Option<usize>) -> Result<Vec<OutputSpec>, Error> {
    let like = q.like(0)?;
    let inner = like.shape.len().saturating_sub(2);
    if rank.is_some_and(|rank| rank != inner) || !(1..=2).contains(&inner) {
        return q.fail(format!("x {:?} must be [n, c, ..] with {} inner dimensions", like.shape, rank.unwrap_or(2)));
    }
    if !like.dtype.is_float() {
        return q.fail(format!("takes floats, not {}", like.dtype));
    }
    let mut shape = like.shape[..2].to_vec();
    shape.extend(taps(q)?.iter().map(Vec::len));
    Ok(vec![OutputSpec::new(like.dtype, shape)])
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let (x, taps) = (args.numbers(0)?, taps(&args.inquiry())?);
    let shape = args.inputs[0].shape();
    let (height, width) = if taps.len() == 2 { (shape[2], shape[3]) } else { (1, shape[2]) };
    let one = vec![vec![(0, 1.0)]];
    let (rows, columns) = if taps.len() == 2 { (&taps[0], &taps[1]) } else { (&one, &taps[0]) };
    let mut y = Vec::new();
    for plane in x.chunks_exact((height * width).max(1)) {
        for row in rows {
            for column in columns {
                let shares = row.iter().flat_map(|r| column.iter().map(move |c| (r.0 * width + c.0, r.1 * c.1)));
                y.push(shares.map(|(at, share)| plane[at] * share).sum());
            }
        }
    }
    args.write_numbers(0, &y)
}

/// The transposes of the maps, as matrices.
fn gradient(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (cx, g) = (b.cx, b.gradient()?);
    let taps = of(&b.inquiry(), b.shape(0))?;
    let dtype = g.element().dtype().unwrap_or(DType::F32);
    let matrix = |taps: &Taps, length: usize| -> Result<Tensor, Error> {
        let mut values = vec![0.0f64; taps.len() * length];
        taps.iter()
            .enumerate()
            .for_each(|(i, all)| all.iter().for_each(|(at, share)| values[i * length + at] += share));
        cast(cx, &Tensor::from_slice(&values, [taps.len(), length])?, dtype)
    };
    let last = b.shape(0).len() - 1;
    let along_rows = matrix(&taps[taps.len() - 1], b.shape(0)[last])?;
    let wide = cx.one(&MATMUL, &[g, &along_rows], &Attributes::NONE)?;
    if taps.len() < 2 {
        return b.only(wide);
    }
    let along_columns = matrix(&taps[0], b.shape(0)[2])?.transpose(0, 1)?.contiguous()?;
    b.only(cx.one(&MATMUL, &[&along_columns, &wide], &Attributes::NONE)?)
}

fn case(name: &'static str, x: &[usize], attributes: &[(&'static str, &[i64])]) -> Profile {
    let all = attributes.iter().fold(Attributes::new(), |all, (name, values)| all.ints(name, values));
    Profile::new(name).normal(x).attributes(all)
}

impl Profile {
    fn more(self, name: &'static str, value: bool) -> Profile {
        let attributes = self.attributes.clone().with(name, Value::Bool(value));
        self.attributes(attributes)
    }

    fn text(self, name: &'static str, value: &'static str) -> Profile {
        let attributes = self.attributes.clone().text(name, value);
        self.attributes(attributes)
    }
}

/// Calls [`INTERPOLATE`]: `x` at `size` places along each inner dimension, in `mode` `nearest` or `linear`.
pub fn interpolate(cx: &Context, x: &Tensor, size: &[i64], mode: &'static str) -> Result<Tensor, Error> {
    cx.one(&INTERPOLATE, &[x], &Attributes::new().ints("size", size).text("mode", mode))
}

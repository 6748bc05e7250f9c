//! AdamW whose state takes one byte for each value (arXiv 2110.02861).
//!
//! Blocks of 256 values share their largest magnitude. A byte is the place of a value in a table of 256: seven decades, each
//! with twice as many values as the one below, evenly spread.

use std::sync::LazyLock;

use windlass_tensor::DType;

use super::{Adam, Rule};
use crate::op::{Input, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attributes, Error, Gradient, Op, Tolerance};

/// Values that share a scale.
pub const BLOCK: usize = 256;

const DECADES: usize = 7;

/// `adam8_step`: AdamW with a mean and a mean square of bytes.
pub static ADAM8_STEP: Op = Op {
    name: "adam8_step",
    about: "changes parameter, mean and mean square by a gradient; means are bytes with a scale for each 256",
    // Outputs: the parameter (F32), bytes of both means (U8, like the gradient), scales of both (F32, one for each block).
    inputs: &[Input::new("gradient")],
    attributes: super::rules::ADAM_ATTRIBUTES,
    outputs: |q| {
        let shape = q.shape(0)?;
        let blocks = shape.iter().product::<usize>().div_ceil(BLOCK);
        let like = |dtype| OutputSpec::new(dtype, shape).zeroed();
        let scales = || OutputSpec::new(DType::F32, [blocks]).zeroed();
        Ok(vec![like(DType::F32), like(DType::U8), like(DType::U8), scales(), scales()])
    },
    reference,
    gradient: Gradient::Refused("it is a step of an optimizer"),
    tolerance: Tolerance { relative: 1e-5, absolute: 1e-7 },
    profiles: |_| {
        let how = Attributes::new().float("learning_rate", 1e-2).int("step", 3).float("weight_decay", 0.1);
        vec![
            Profile::new("blocks").normal(&[3, 512]).attributes(how.clone()),
            Profile::new("rest").normal(&[777]).attributes(how),
        ]
    },
};

/// A table of 256 values, and where between them the borders lie.
#[derive(Debug)]
pub struct Codes {
    /// In rising order.
    pub values: [f32; 256],
    signed: bool,
    /// Above `from[i]` a magnitude is in decade `i`; above the last it is 1.
    from: [f32; DECADES + 1],
    /// The place of magnitude `x` in decade `i` is `x * slope[i] + offset[i]`, at most `last[i]`.
    slope: [f32; DECADES + 1],
    offset: [f32; DECADES + 1],
    last: [f32; DECADES + 1],
}

impl Codes {
    /// For values of both signs.
    pub fn signed() -> &'static Self {
        static CODES: LazyLock<Codes> = LazyLock::new(|| Codes::new(true));
        &CODES
    }

    /// For values from 0 up.
    pub fn unsigned() -> &'static Self {
        static CODES: LazyLock<Codes> = LazyLock::new(|| Codes::new(false));
        &CODES
    }

    fn new(signed: bool) -> Self {
        let mut values = vec![0.0f32, 1.0];
        let [mut from, mut slope, mut offset, mut last] = [[0.0f32; DECADES + 1]; 4];
        // The largest magnitude below a decade, and its place.
        let (mut below, mut place) = (0.0f64, 0usize);
        for decade in 0..DECADES {
            let count = if signed { 1 << decade } else { 2 << decade };
            let size = 10.0f64.powi(decade as i32 + 1 - DECADES as i32);
            let step = 0.9 / count as f64;
            let magnitude = |i: usize| size * (0.1 + step * (i as f64 + 0.5));
            from[decade] = ((below + magnitude(0)) / 2.0) as f32;
            slope[decade] = (1.0 / (size * step)) as f32;
            offset[decade] = ((place + 1) as f64 - 0.1 / step) as f32;
            (below, place) = (magnitude(count - 1), place + count);
            last[decade] = place as f32;
            let edges = evenly(count);
            for pair in edges.windows(2) {
                let value = size as f32 * ((pair[0] + pair[1]) / 2.0);
                values.push(value);
                values.extend(signed.then_some(-value));
            }
        }
        (from[DECADES], offset[DECADES]) = (((below + 1.0) / 2.0) as f32, (place + 1) as f32);
        last[DECADES] = offset[DECADES];
        values.sort_by(f32::total_cmp);
        let mut table = [0.0; 256];
        table.copy_from_slice(&values[..256]);
        Self { values: table, signed, from, slope, offset, last }
    }

    /// The place of the value nearest to `x`, from -1 to 1; within 2e-5 of a border it may be either neighbour.
    #[inline(always)]
    pub fn encode(&self, x: f32) -> u8 {
        let size = x.abs();
        let (mut slope, mut offset, mut last) = (0.0f32, 0.0f32, 0.0f32);
        for decade in 0..=DECADES {
            let above = size > self.from[decade];
            slope = if above { self.slope[decade] } else { slope };
            offset = if above { self.offset[decade] } else { offset };
            last = if above { self.last[decade] } else { last };
        }
        let place = size * slope + offset;
        let place = if place < last { place } else { last };
        // Whole, and from 0 to 255: as a signed number it converts in one instruction.
        let place = place as i32;
        if !self.signed {
            return place as u8;
        }
        let place = if x < 0.0 { 127 - place } else { 127 + place };
        (if place < 0 { 0 } else { place }) as u8
    }
}

/// `count + 1` numbers from 0.1 to 1 in even steps, in single precision: from the nearer end and rounded once, as torch's
/// `linspace` has them.
fn evenly(count: usize) -> Vec<f32> {
    let step = (1.0f32 - 0.1) / count as f32;
    let edge = |i: usize| {
        if i < count.div_ceil(2) { step.mul_add(i as f32, 0.1) } else { (-step).mul_add((count - i) as f32, 1.0) }
    };
    (0..=count).map(edge).collect()
}

/// What a step does to 256 values, or the rest at the end.
pub struct Block<'a> {
    pub gradient: &'a [f32],
    pub parameter: &'a mut [f32],
    /// Of mean and mean square.
    pub codes: [&'a mut [u8]; 2],
    pub scales: [&'a mut f32; 2],
}

impl Block<'_> {
    /// The step, in the order in which bitsandbytes has it.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    pub fn step(self, adam: &Adam) {
        let (signed, unsigned) = (Codes::signed(), Codes::unsigned());
        let [to_mean, to_square] = self.codes;
        let [mean_scale, square_scale] = self.scales;
        // Copies of one length, which do not overlap: compilers make vectors of them. What is past the end is zero.
        let count = self.gradient.len();
        let [mut m, mut v, mut p, mut g] = [[0.0f32; BLOCK]; 4];
        p[..count].copy_from_slice(self.parameter);
        g[..count].copy_from_slice(self.gradient);
        for (m, code) in m.iter_mut().zip(&*to_mean) {
            *m = signed.values[usize::from(*code)];
        }
        for (v, code) in v.iter_mut().zip(&*to_square) {
            *v = unsigned.values[usize::from(*code)];
        }
        let (beta1, beta2) = (adam.beta1 as f32, adam.beta2 as f32);
        let (new1, new2) = ((1.0 - adam.beta1) as f32, (1.0 - adam.beta2) as f32);
        let (root, epsilon) = (adam.corrections[1].sqrt() as f32, adam.epsilon as f32);
        let rate = (adam.learning_rate / adam.corrections[0]) as f32;
        let decay = adam.learning_rate * adam.weight_decay;
        let (keep, joined) = match adam.decoupled {
            true => ((1.0 - decay) as f32, 0.0),
            false => (1.0, adam.weight_decay as f32),
        };
        let (from_mean, from_square) = (*mean_scale, *square_scale);
        for i in 0..BLOCK {
            let gradient = g[i] + joined * p[i];
            m[i] = m[i] * from_mean * beta1 + new1 * gradient;
            v[i] = v[i] * from_square * beta2 + new2 * gradient * gradient;
            p[i] = p[i] * keep - rate * m[i] / (v[i].sqrt() / root + epsilon);
        }
        self.parameter.copy_from_slice(&p[..count]);
        *mean_scale = encode(signed, &m, to_mean);
        *square_scale = encode(unsigned, &v, to_square);
    }
}

/// Gives the scale. Values past the end of the codes are zeros.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn encode(table: &Codes, values: &[f32; BLOCK], codes: &mut [u8]) -> f32 {
    let mut most = [0.0f32; 16];
    for part in values.as_chunks::<16>().0 {
        for (most, value) in most.iter_mut().zip(part) {
            *most = if value.abs() > *most { value.abs() } else { *most };
        }
    }
    let scale = most.iter().fold(0.0f32, |a, b| a.max(*b));
    let inverse = 1.0 / scale.max(1e-38);
    let mut all = [0u8; BLOCK];
    for i in 0..BLOCK {
        all[i] = table.encode(values[i] * inverse);
    }
    codes.copy_from_slice(&all[..codes.len()]);
    scale
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let adam = <Adam as Rule<3>>::of(&args.inquiry())?;
    let gradient = args.f32s(0)?.into_owned();
    let [p, a, b, c, d] = planes(args)?;
    let (p, c, d) = (floats(p), floats(c), floats(d));
    let parts = gradient.chunks(BLOCK).zip(p.chunks_mut(BLOCK)).zip(a.chunks_mut(BLOCK).zip(b.chunks_mut(BLOCK)));
    for (((gradient, parameter), (a, b)), (c, d)) in parts.zip(c.iter_mut().zip(d)) {
        Block { gradient, parameter, codes: [a, b], scales: [c, d] }.step(&adam);
    }
    Ok(())
}

/// The bytes of the outputs of a call: parameter, codes of both means, scales of both.
pub fn planes<'a>(args: &'a mut Args) -> Result<[&'a mut [u8]; 5], Error> {
    let op = args.op.name;
    let wrong = || Error::Argument { op, message: "outputs are not in memory of their own".into() };
    let bytes: Option<Vec<&mut [u8]>> = args.outputs.iter_mut().map(|t| t.bytes_mut()).collect();
    let aligned =
        |all: &[&mut [u8]; 5]| [0, 3, 4].iter().all(|i| all[*i].as_ptr().addr().is_multiple_of(align_of::<f32>()));
    bytes.and_then(|all| all.try_into().ok()).filter(aligned).ok_or_else(wrong)
}

fn floats(bytes: &mut [u8]) -> &mut [f32] {
    bytemuck::try_cast_slice_mut(bytes).unwrap_or_default()
}

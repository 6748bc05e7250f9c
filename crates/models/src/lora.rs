//! Adapters in training: low-rank changes of linear maps.

use std::collections::HashMap;
use std::ops::Range;

use windlass_catalog::Role;
use windlass_nn::{Tape, Var};
use windlass_ops::{Attributes, library};
use windlass_tensor::{Tensor, TypedTensor};

use crate::Error;

/// A low-rank change of one linear map (arXiv 2106.09685): `scale * B A` is added to its matrix.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Place of A `[rank, in]` among the parameters.
    pub a: usize,
    /// Place of B `[out, rank]`.
    pub b: usize,
    /// The rows of B that are this map's, where several are stored as one.
    pub rows: Range<usize>,
    /// Place of the length of every row `[out]`, for a weight-decomposed change (DoRA, arXiv 2402.09353), and the squares
    /// of the lengths that the rows of the base have.
    pub magnitude: Option<(usize, Tensor)>,
    pub scale: f32,
    /// How often a value of the input is left out.
    pub dropout: f64,
    /// Tells the change's random numbers from those of others.
    pub stream: u64,
}

/// The changes of a model, by what they change.
pub type Loras = HashMap<(Role, usize), Vec<Lora>>;

/// Random numbers of one step: the same seed and counter leave out the same values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Randomness {
    pub seed: u64,
    /// Rises with every batch.
    pub batch: u64,
    /// Whether values are left out at all.
    pub training: bool,
}

/// Whether `x (W + scale B A)^T` is all there is to a change.
pub(crate) fn is_plain(lora: &Lora, random: &Randomness) -> bool {
    lora.magnitude.is_none() && !drops(lora, random)
}

/// `x` times weights that have one plain change each, all of the same scale: it is read once for all of them.
pub(crate) fn plainly_changed(
    tape: &Tape,
    x: &Var,
    maps: &[(&Var, &Lora)],
    parameters: &[Var],
) -> Result<Vec<Var>, Error> {
    let mut inputs = vec![x.clone()];
    for (weight, lora) in maps {
        let parameter = |index: usize| parameters.get(index).ok_or(Error::Parameter { index });
        inputs.extend([(*weight).clone(), parameter(lora.a)?.clone(), part(tape, parameter(lora.b)?, &lora.rows)?]);
    }
    let scale = maps.first().map_or(1.0, |(_, lora)| lora.scale);
    let inputs: Vec<&Var> = inputs.iter().collect();
    let outputs = tape.call(&library::LORA_LINEAR, &inputs, &Attributes::new().float("by", scale.into()))?;
    Ok(outputs.into_iter().step_by(2).collect())
}

/// `base`, which is `x` times the frozen `weight`, with the changes of `loras`.
pub(crate) fn changed(
    tape: &Tape,
    [x, base]: [&Var; 2],
    weight: &Tensor,
    loras: &[Lora],
    parameters: &[Var],
    random: &Randomness,
) -> Result<Var, Error> {
    let mut sum = base.clone();
    for lora in loras {
        let parameter = |index: usize| parameters.get(index).ok_or(Error::Parameter { index });
        let (a, whole) = (parameter(lora.a)?, parameter(lora.b)?);
        let b = &part(tape, whole, &lora.rows)?;
        let x = dropped(tape, x, lora, random)?;
        let low = tape.one(&library::LINEAR, &[&x, a], &Attributes::NONE)?;
        let change = tape.one(&library::LINEAR, &[&low, b], &Attributes::NONE)?;
        let by = Attributes::new().float("by", lora.scale.into());
        let add_scaled = windlass_ops::op("add_scaled")?;
        match &lora.magnitude {
            None => sum = tape.one(add_scaled, &[&sum, &change], &by)?,
            Some((index, squares)) => {
                // Of the base without its bias, and of the change, whose lengths are constants (as PEFT has it).
                let lengths = tape.no_grad(|tape| lengths(tape, weight, squares, [a, b], lora.scale))?;
                let factor = tape.elementwise("div", &[&part(tape, parameter(*index)?, &lora.rows)?, &lengths])?;
                // With dropout the base part is of the dropped input, as PEFT has it.
                let base = if drops(lora, random) {
                    let exact = Attributes::new().bool("exact", true);
                    tape.one(&library::LINEAR, &[&x, &Var::constant(weight.clone())], &exact)?
                } else {
                    base.clone()
                };
                let whole = tape.one(add_scaled, &[&base, &change], &by)?;
                let difference = tape.elementwise("sub", &[&tape.elementwise("mul", &[&whole, &factor])?, &base])?;
                sum = tape.elementwise("add", &[&sum, &difference])?;
            }
        }
    }
    Ok(sum)
}

/// Rows of a parameter.
fn part(tape: &Tape, whole: &Var, rows: &Range<usize>) -> Result<Var, Error> {
    let all = whole.shape().first().copied().unwrap_or(0);
    Ok(if *rows == (0..all) { whole.clone() } else { tape.narrow(whole, 0, rows.start, rows.len())? })
}

/// Whether values of its input are left out.
fn drops(lora: &Lora, random: &Randomness) -> bool {
    lora.dropout > 0.0 && random.training
}

fn dropped(tape: &Tape, x: &Var, lora: &Lora, random: &Randomness) -> Result<Var, Error> {
    if !drops(lora, random) {
        return Ok(x.clone());
    }
    let how = Attributes::new()
        .float("p", lora.dropout)
        .int("seed", (random.seed ^ lora.stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as usize & (usize::MAX >> 1))
        .int("counter", (random.batch as usize) << 32);
    Ok(tape.one(&library::DROPOUT, &[x], &how)?)
}

/// The lengths of the rows of `W + scale B A`: `|w|^2 + 2 scale b (A w) + scale^2 |b A|^2` for each row.
fn lengths(tape: &Tape, weight: &Tensor, squares: &Tensor, [a, b]: [&Var; 2], scale: f32) -> Result<Var, Error> {
    let exact = Attributes::new().bool("exact", true);
    let (a, b) = (a.detach(), b.detach());
    // A W^T, as [rank, out].
    let across = tape.one(&library::LINEAR, &[&a, &Var::constant(weight.clone())], &exact)?;
    let across = tape.transpose(&across, 0, 1)?;
    let last = Attributes::new().ints("dim", &[-1]);
    let across = tape.one(&library::SUM, &[&tape.elementwise("mul", &[&across, &b])?], &last)?;
    let turned = tape.transpose(&a, 0, 1)?;
    let inner = tape.one(&library::MATMUL, &[&a, &turned], &Attributes::NONE)?;
    let inner = tape.one(&library::MATMUL, &[&b, &inner], &Attributes::NONE)?;
    let inner = tape.one(&library::SUM, &[&tape.elementwise("mul", &[&inner, &b])?], &last)?;
    let sum = tape.one(
        windlass_ops::op("add_scaled")?,
        &[&Var::constant(squares.clone()), &across],
        &Attributes::new().float("by", 2.0 * f64::from(scale)),
    )?;
    let by = Attributes::new().float("by", f64::from(scale).powi(2));
    let sum = tape.one(windlass_ops::op("add_scaled")?, &[&sum, &inner], &by)?;
    Ok(tape.elementwise("sqrt", &[&sum])?)
}

/// The squares of the lengths of the rows of a weight, plain or packed, decoded some rows at a time.
pub fn row_squares(cx: &windlass_ops::Context, weight: &Tensor) -> Result<Tensor, Error> {
    let (rows, columns) = (weight.shape().rows(), weight.shape().columns());
    let mut squares = vec![0.0f32; rows];
    let ones = Attributes::new().ints("dim", &[-1]);
    // Some schemes cut at several rows only: then all of it is decoded.
    let step = (1 << 20) / columns.max(1) / 64 * 64;
    let mut first = 0;
    while first < rows {
        let count = step.max(64).min(rows - first);
        let (part, count) = match weight.rows(first..first + count) {
            Ok(part) => (part, count),
            Err(_) if first == 0 => (weight.clone(), rows),
            Err(error) => return Err(error.into()),
        };
        let floats = library::cast(cx, &part, windlass_tensor::DType::F32)?;
        let squared = library::elementwise(cx, "square", &[&floats])?;
        let sums = TypedTensor::<f32>::new(cx.one(&library::SUM, &[&squared], &ones)?)?;
        squares[first..first + count].copy_from_slice(&sums.to_vec()?);
        first += count;
    }
    Ok(Tensor::from_slice(&squares, [rows])?)
}

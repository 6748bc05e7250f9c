//! What parameters begin with, as `torch.nn.init` has it, from counted random numbers.

use windlass_runtime::random::Philox;
use windlass_tensor::Tensor;

use crate::Error;

/// How a tensor is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    Constant(f64),
    /// Evenly from the first to the second.
    Uniform(f64, f64),
    /// With this mean and deviation.
    Normal(f64, f64),
    /// The same within bounds: mean, deviation, least, most.
    TruncatedNormal(f64, f64, f64, f64),
    /// Ones on the diagonal of a matrix.
    Eye,
    /// A convolution that gives its input back, in each of so many groups.
    Dirac(usize),
    /// Evenly, or normal, by inputs and outputs (Glorot and Bengio 2010), times a gain.
    XavierUniform(f64),
    XavierNormal(f64),
    /// Evenly, or normal, by inputs (or outputs) alone (arXiv 1502.01852), times a gain.
    KaimingUniform(f64, Fan),
    KaimingNormal(f64, Fan),
    /// Rows or columns at right angles (arXiv 1312.6120), times a gain.
    Orthogonal(f64),
    /// A share of each column is zero, the rest normal with a deviation.
    Sparse(f64, f64),
}

/// What a deviation is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    Inputs,
    Outputs,
}

/// What keeps the size of values after a function: as torch's `calculate_gain`. `slope` is that of `leaky_relu`.
pub fn gain(function: &str, slope: f64) -> Result<f64, Error> {
    match function {
        "linear" | "sigmoid" | "conv1d" | "conv2d" => Ok(1.0),
        "tanh" => Ok(5.0 / 3.0),
        "relu" => Ok(2.0f64.sqrt()),
        "leaky_relu" => Ok((2.0 / (1.0 + slope * slope)).sqrt()),
        "selu" => Ok(0.75),
        other => Err(Error::Setting(format!("no gain is known for {other:?}"))),
    }
}

impl Init {
    /// A tensor of this shape. The same `random` gives the same values.
    pub fn make(self, shape: &[usize], random: &Philox) -> Result<Tensor, Error> {
        let count = shape.iter().product();
        let mut random = *random;
        let mut normal = |mean: f64, deviation: f64| {
            let mut values = vec![0.0f64; count];
            random.fill_normal_f64(&mut values);
            values.iter().map(|v| (mean + deviation * v) as f32).collect::<Vec<f32>>()
        };
        let values = match self {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Constant(value) => vec![value as f32; count],
            Init::Uniform(low, high) => evenly(count, low, high, &mut random),
            Init::Normal(mean, deviation) => normal(mean, deviation),
            Init::TruncatedNormal(mean, deviation, least, most) => {
                truncated(count, [mean, deviation, least, most], &mut random)?
            }
            Init::Eye => eye(shape)?,
            Init::Dirac(groups) => dirac(shape, groups)?,
            Init::XavierUniform(gain) => {
                let (inputs, outputs) = fans(shape)?;
                let bound = gain * (6.0 / (inputs + outputs)).sqrt();
                evenly(count, -bound, bound, &mut random)
            }
            Init::XavierNormal(gain) => {
                let (inputs, outputs) = fans(shape)?;
                normal(0.0, gain * (2.0 / (inputs + outputs)).sqrt())
            }
            Init::KaimingUniform(gain, fan) => {
                let bound = gain * (3.0 / fan.of(shape)?).sqrt();
                evenly(count, -bound, bound, &mut random)
            }
            Init::KaimingNormal(gain, fan) => normal(0.0, gain / fan.of(shape)?.sqrt()),
            Init::Orthogonal(gain) => orthogonal(shape, gain, &mut random)?,
            Init::Sparse(share, deviation) => {
                let values = normal(0.0, deviation);
                sparse(shape, share, values, &mut random)?
            }
        };
        Ok(Tensor::from_slice(&values, shape)?)
    }
}

impl Fan {
    fn of(self, shape: &[usize]) -> Result<f64, Error> {
        let (inputs, outputs) = fans(shape)?;
        Ok(if self == Fan::Inputs { inputs } else { outputs })
    }
}

/// Inputs and outputs of a weight `[out, in, ..]`.
fn fans(shape: &[usize]) -> Result<(f64, f64), Error> {
    let [outputs, inputs, window @ ..] = shape else { return wrong("inputs and outputs are those of a matrix", shape) };
    let window: usize = window.iter().product();
    Ok(((inputs * window) as f64, (outputs * window) as f64))
}

fn wrong<T>(what: &str, shape: &[usize]) -> Result<T, Error> {
    Err(Error::Setting(format!("{what}, not of the shape {shape:?}")))
}

fn evenly(count: usize, low: f64, high: f64, random: &mut Philox) -> Vec<f32> {
    let mut values = vec![0.0f64; count];
    random.fill_uniform_f64(&mut values);
    values.iter().map(|v| (low + (high - low) * v) as f32).collect()
}

/// Draws again what falls outside.
fn truncated(count: usize, [mean, deviation, least, most]: [f64; 4], random: &mut Philox) -> Result<Vec<f32>, Error> {
    // Where less than one in a thousand falls inside, drawing takes too long.
    let reach = |bound: f64| (bound - mean) / deviation;
    if !(deviation > 0.0
        && least < most
        && reach(least) < 3.0
        && reach(most) > -3.0
        && reach(most) - reach(least) > 1e-2)
    {
        let message =
            format!("few normal values with mean {mean} and deviation {deviation} are from {least} to {most}");
        return Err(Error::Setting(message));
    }
    let mut values = Vec::with_capacity(count);
    let mut drawn = [0.0f64; 256];
    while values.len() < count {
        random.fill_normal_f64(&mut drawn);
        let inside = drawn.iter().map(|v| mean + deviation * v).filter(|v| (least..=most).contains(v));
        values.extend(inside.take(count - values.len()).map(|v| v as f32));
    }
    Ok(values)
}

fn eye(shape: &[usize]) -> Result<Vec<f32>, Error> {
    let [rows, columns] = shape else { return wrong("a diagonal is that of a matrix", shape) };
    let mut values = vec![0.0; rows * columns];
    values.iter_mut().step_by(columns + 1).take(*rows.min(columns)).for_each(|v| *v = 1.0);
    Ok(values)
}

fn dirac(shape: &[usize], groups: usize) -> Result<Vec<f32>, Error> {
    let [outputs, inputs, window @ ..] = shape else { return wrong("dirac fills weights of convolutions", shape) };
    if window.is_empty() || groups == 0 || outputs % groups != 0 {
        return wrong("dirac fills weights of convolutions whose outputs are in equal groups", shape);
    }
    let size: usize = window.iter().product();
    let centre = window.iter().fold(0, |at, length| at * length + length / 2);
    let mut values = vec![0.0; outputs * inputs * size];
    let each = outputs / groups;
    for group in 0..groups {
        for d in 0..each.min(*inputs) {
            values[((group * each + d) * inputs + d) * size + centre] = 1.0;
        }
    }
    Ok(values)
}

/// Normal rows, each made to stand at right angles to those before (twice, for the digits), as long as one.
fn orthogonal(shape: &[usize], gain: f64, random: &mut Philox) -> Result<Vec<f32>, Error> {
    let [rows, rest @ ..] = shape else { return wrong("orthogonal fills matrices", shape) };
    if rest.is_empty() {
        return wrong("orthogonal fills matrices", shape);
    }
    let (rows, columns) = (*rows, rest.iter().product::<usize>());
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut values = vec![0.0f64; count * length];
    random.fill_normal_f64(&mut values);
    for row in 0..count {
        let (before, this) = values.split_at_mut(row * length);
        let this = &mut this[..length];
        for _ in 0..2 {
            for other in before.chunks_exact(length) {
                let along: f64 = this.iter().zip(other).map(|(a, b)| a * b).sum();
                this.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = this.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        this.iter_mut().for_each(|v| *v /= norm);
    }
    let at = |row: usize, column: usize| match rows <= columns {
        true => values[row * length + column],
        false => values[column * length + row],
    };
    Ok((0..rows * columns).map(|i| (gain * at(i / columns, i % columns)) as f32).collect())
}

fn sparse(shape: &[usize], share: f64, mut values: Vec<f32>, random: &mut Philox) -> Result<Vec<f32>, Error> {
    let [rows, columns] = shape else { return wrong("sparse fills matrices", shape) };
    let zeros = (share.clamp(0.0, 1.0) * *rows as f64).ceil() as usize;
    for column in 0..*columns {
        for row in random.permutation(*rows).into_iter().take(zeros) {
            values[row * columns + column] = 0.0;
        }
    }
    Ok(values)
}

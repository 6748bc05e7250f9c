//! The loss over a vocabulary, some tokens at a time: the logits of a batch are never held together.

use windlass_nn::{Error as NnError, Function, Gradients, Tape, Var};
use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{DType, Tensor, TypedTensor};

use crate::Error;

/// Logits that are held together: 80 MB, which is 128 tokens of a vocabulary of 150,000. Fewer tokens would read the
/// output matrix more often.
const LOGITS: usize = 20 << 20;

/// What does not count.
const IGNORED: i64 = -100;

/// The sum over tokens of the cross entropy of `hidden` `[tokens, width]` times the transpose of `output`
/// `[vocabulary, width]` with `targets` (I64 `[tokens]`), of which -100 does not count. Gradients are computed with it.
pub(crate) fn linear_cross_entropy(
    tape: &Tape,
    hidden: &Var,
    output: &Var,
    targets: &Tensor,
    soft_cap: Option<f32>,
) -> Result<Var, Error> {
    let cx = tape.context();
    let all = TypedTensor::<i64>::new(targets.clone()).and_then(|t| t.to_vec())?;
    let counted: Vec<i64> = (0..).zip(&all).filter(|(_, target)| **target != IGNORED).map(|(i, _)| i).collect();
    let wanted = [hidden, output].map(|var| tape.is_recording() && var.wants_gradient());
    let mut loss = 0.0f64;
    let mut flowed = Flowed {
        hidden: wanted[0].then(|| windlass_ops::zeros(DType::F32, hidden.shape())).transpose()?,
        output: wanted[1].then(|| windlass_ops::zeros(DType::F32, output.shape())).transpose()?,
    };
    let classes = output.shape().first().copied().unwrap_or(1).max(1);
    let together = (LOGITS / classes).clamp(16, counted.len().max(16));
    // Parts of like size.
    let together = counted.len().div_ceil(counted.len().div_ceil(together).max(1)).max(1);
    for part in counted.chunks(together) {
        let places = tensor(part, [part.len()])?;
        let x = cx.one(&library::INDEX_SELECT, &[hidden.tensor(), &places], &Attributes::NONE)?;
        let targets: Vec<i64> = part.iter().map(|i| all[*i as usize]).collect();
        let targets = tensor(&targets, [part.len()])?;
        let raw = cx.one(&library::LINEAR, &[&x, output.tensor()], &Attributes::new().bool("exact", true))?;
        let (losses, back) = losses(cx, raw, &targets, soft_cap)?;
        loss += losses;
        if let Some(known) = &flowed.hidden {
            let rows = library::linear_transposed(cx, &back, output.tensor(), None)?;
            flowed.hidden = Some(cx.one(&library::INDEX_ADD, &[known, &places, &rows], &Attributes::NONE)?);
        }
        if let Some(known) = &flowed.output {
            let turned = back.transpose(0, 1)?;
            let more = library::matmul(cx, &turned, &x)?;
            flowed.output = Some(library::elementwise(cx, "add", &[known, &more])?);
        }
    }
    let loss = tensor(&[loss as f32], [])?;
    Ok(tape.custom(&[hidden, output], vec![loss], flowed).remove(0))
}

/// The sum of the losses, and the gradients for the logits before they were capped, in whose room they are.
fn losses(cx: &Context, raw: Tensor, targets: &Tensor, soft_cap: Option<f32>) -> Result<(f64, Tensor), Error> {
    let (rows, classes) = (raw.shape().rows(), raw.shape().columns());
    let step = |logits: Tensor| -> Result<(f64, Tensor), Error> {
        let mut outputs = [logits, tensor(&vec![0.0f32; rows], [rows])?];
        let how = Attributes::new().int("classes", classes);
        cx.call_into(&library::CROSS_ENTROPY_STEP, &[targets], &how, &mut outputs)?;
        let [back, losses] = outputs;
        let losses = TypedTensor::<f32>::new(losses).and_then(|t| t.to_vec())?;
        Ok((losses.into_iter().map(f64::from).sum(), back))
    };
    let Some(cap) = soft_cap else { return step(raw) };
    let cap = Attributes::new().float("cap", cap.into());
    let (loss, back) = step(library::elementwise_with(cx, "soft_cap", &[&raw], &cap)?)?;
    Ok((loss, library::elementwise_with(cx, "soft_cap_dx", &[&raw, &back], &cap)?))
}

fn tensor<T: windlass_tensor::Scalar>(values: &[T], shape: impl Into<Vec<usize>>) -> Result<Tensor, Error> {
    Ok(Tensor::from_slice(values, shape)?)
}

/// The gradients for a loss into which 1 flows back.
struct Flowed {
    hidden: Option<Tensor>,
    output: Option<Tensor>,
}

impl Function for Flowed {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn backward(
        self: Box<Self>,
        cx: &Context,
        gradients: &[Option<Tensor>],
        _wanted: &[bool],
        _leaves: &mut Gradients,
    ) -> Result<Vec<Option<Tensor>>, NnError> {
        let [Some(gradient)] = gradients else { return Ok(vec![None, None]) };
        let by = Attributes::new().float("by", TypedTensor::<f32>::new(gradient.clone())?.get(&[])?.into());
        let scaled = |t: Option<Tensor>| -> Result<Option<Tensor>, NnError> {
            t.map(|t| Ok(library::elementwise_with(cx, "scale", &[&t], &by)?)).transpose()
        };
        Ok(vec![scaled(self.hidden)?, scaled(self.output)?])
    }
}

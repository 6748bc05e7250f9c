//! The loss over a vocabulary, some tokens at a time: the logits of a batch are never held together.

use windlass_nn::{Error as NnError, Function, Gradients, Tape, Var};
use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{DType, Tensor, TypedTensor};

use crate::Error;

/// Tokens whose logits are held together: 64 times a vocabulary of 150,000 takes 40 MB.
const ROWS: usize = 64;

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
    for part in counted.chunks(ROWS) {
        let places = tensor(part, [part.len()])?;
        let x = cx.one(&library::INDEX_SELECT, &[hidden.tensor(), &places], &Attributes::NONE)?;
        let targets: Vec<i64> = part.iter().map(|i| all[*i as usize]).collect();
        let targets = tensor(&targets, [part.len()])?;
        let raw = cx.one(&library::LINEAR, &[&x, output.tensor()], &Attributes::new().bool("exact", true))?;
        let cap = Attributes::new().float("cap", soft_cap.unwrap_or(1.0).into());
        let logits = match soft_cap {
            Some(_) => library::elementwise_with(cx, "soft_cap", &[&raw], &cap)?,
            None => raw.clone(),
        };
        let sum = cx.one(&library::CROSS_ENTROPY, &[&logits, &targets], &Attributes::new().text("reduction", "sum"))?;
        loss += f64::from(TypedTensor::<f32>::new(sum).and_then(|t| t.get(&[]))?);
        if flowed.hidden.is_none() && flowed.output.is_none() {
            continue;
        }
        let ones = tensor(&vec![1.0f32; part.len()], [part.len()])?;
        let back = cx.one(&library::CROSS_ENTROPY_BACKWARD, &[&logits, &targets, &ones], &Attributes::NONE)?;
        drop(logits);
        let back = match soft_cap {
            Some(_) => library::elementwise_with(cx, "soft_cap_dx", &[&raw, &back], &cap)?,
            None => back,
        };
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
        let scaled = |t: Option<Tensor>| -> Result<Option<Tensor>, NnError> {
            t.map(|t| Ok(library::elementwise(cx, "mul", &[&t, gradient])?)).transpose()
        };
        Ok(vec![scaled(self.hidden)?, scaled(self.output)?])
    }
}

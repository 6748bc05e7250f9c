//! What became not a number first: a step that failed is run again, and every op's results are looked at.

use std::cell::RefCell;

use windlass_ops::{Call, Context};
use windlass_tensor::{DType, Tensor};

use crate::Error;

/// What is known of the first tensor that has values that are no numbers, or infinite.
#[derive(Debug, Default)]
struct Finding {
    /// The last weight that was used.
    weight: Option<String>,
    culprit: Option<String>,
}

/// Runs `work` and says which tensor had the first value that is not finite: a weight, a parameter, or the result of an
/// op, with the weight that was used last. `name` knows the names of parameters.
pub fn first_odd(
    cx: &Context,
    name: impl Fn(&Tensor) -> Option<String>,
    work: impl FnOnce(&Context) -> Result<(), Error>,
) -> Result<Option<String>, Error> {
    let finding = RefCell::new(Finding::default());
    let watch = |call: &Call| {
        let mut finding = finding.borrow_mut();
        if finding.culprit.is_none() {
            finding.look(call, &name);
        }
    };
    work(&cx.again().with_watch(&watch))?;
    Ok(finding.into_inner().culprit)
}

impl Finding {
    fn look(&mut self, call: &Call, name: impl Fn(&Tensor) -> Option<String>) {
        for input in call.inputs {
            let known = input.provenance().origin().map(|origin| origin.tensor.clone()).or_else(|| name(input));
            let Some(known) = known else { continue };
            if let Some(value) = odd(input) {
                self.culprit = Some(format!("{known} has the value {value}"));
                return;
            }
            self.weight = Some(known);
        }
        let Some(value) = call.outputs.iter().find_map(odd) else { return };
        let with = self.weight.as_ref().map_or(String::new(), |weight| format!(", at {weight}"));
        let shape = call.outputs.first().map(|output| output.shape().to_vec()).unwrap_or_default();
        self.culprit = Some(format!("the result of {}{with} ({shape:?}) has the value {value}", call.op.name));
    }
}

/// The first value of a plain tensor of floats that is not finite.
fn odd(tensor: &Tensor) -> Option<f64> {
    let contiguous;
    let bytes = match tensor.bytes() {
        Some(bytes) => bytes,
        None => {
            contiguous = tensor.contiguous().ok()?;
            contiguous.bytes()?
        }
    };
    let found = |value: f64| (!value.is_finite()).then_some(value);
    match tensor.element().dtype()? {
        DType::F32 => bytes.as_chunks().0.iter().find_map(|b| found(f32::from_le_bytes(*b).into())),
        DType::F64 => bytes.as_chunks().0.iter().find_map(|b| found(f64::from_le_bytes(*b))),
        DType::F16 => bytes.as_chunks().0.iter().find_map(|b| found(half::f16::from_le_bytes(*b).into())),
        DType::BF16 => bytes.as_chunks().0.iter().find_map(|b| found(half::bf16::from_le_bytes(*b).into())),
        _ => None,
    }
}

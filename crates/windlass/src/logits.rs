//! `logits`: what a model says comes after each token.

use std::path::{Path, PathBuf};

use serde::Serialize;
use windlass_formats::{Target, TargetTensor, container};
use windlass_models::Wanted;
use windlass_ops::Context;
use windlass_tensor::{DType, Element};

use crate::load::{Loaded, Run};
use crate::{Code, Error, Result};

/// What was computed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tokens: usize,
    pub vocabulary: usize,
    pub out: PathBuf,
}

/// Computes logits for every one of `tokens` and writes them to a safetensors file: one tensor `logits`, F32, of shape
/// [tokens, vocabulary].
pub fn logits(
    cx: &Context,
    loaded: &Loaded,
    tokens: &[u32],
    cache: Element,
    out: &Path,
    overwrite: bool,
) -> Result<Report> {
    if out.exists() && !overwrite {
        let message = format!("{} exists already", out.display());
        return Err(Error::new(Code::Failed, message).at(out).help("choose another name, or add --overwrite"));
    }
    let count = tokens.len();
    if count > loaded.context {
        let message = format!("there are {count} tokens, the context has {}", loaded.context);
        return Err(Error::usage(message).help("give a larger --context, or fewer tokens"));
    }
    let mut cache = loaded.cache(&Run { context: count, element: cache, batch: count, logits: count })?;
    let logits = loaded.decoder.forward(cx, tokens, &mut cache, Wanted::All)?;
    let logits = logits.ok_or_else(|| Error::new(Code::Failed, "the model gave no logits"))?;
    let shape = logits.shape().to_vec();
    let container =
        container("safetensors").ok_or_else(|| Error::new(Code::Failed, "safetensors is not registered"))?;
    let tensor = TargetTensor { name: "logits".into(), element: DType::F32.into(), shape: shape.clone() };
    let layout = container.layout(&Target { tensors: vec![tensor], ..Target::default() })?;
    crate::convert::write_layout(out, &layout, |_| {
        let mut bytes = vec![0; logits.shape().values() * 4];
        logits.read(&mut bytes)?;
        Ok(bytes)
    })?;
    Ok(Report { tokens: tokens.len(), vocabulary: shape[1], out: out.into() })
}

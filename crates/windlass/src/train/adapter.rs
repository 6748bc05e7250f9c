//! Adapters that training begins with, and writes.

use std::path::{Path, PathBuf};

use serde_json::json;
use windlass_formats::adapter::{self, Factor, Form, Style};
use windlass_formats::{Layout, Target, TargetTensor, container};
use windlass_nn::Parameters;
use windlass_tensor::{DType, Limits, Tensor};
use windlass_train::{Adapter, Module, Start, in_plain_order};

use super::Options;
use crate::convert::check_target;
use crate::rows::{decode, rows_and_columns, slices};
use crate::{Code, Error, Model, Result};

/// Reads PEFT's adapter: its factors as floats.
pub fn read(path: &Path, limits: &Limits) -> Result<Start> {
    let source = windlass_formats::open(path, limits)?;
    let refuse = |message: String| Error::new(Code::Refused, message).at(path);
    let found = adapter::read(&source, limits)?.ok_or_else(|| refuse("is not an adapter".into()))?;
    if found.style != Style::Peft {
        return Err(refuse("is not PEFT's adapter".into()).help("convert it first: windlass convert ADAPTER DIR"));
    }
    let pool = windlass_runtime::memory::Pool::new(u64::MAX);
    let reader = crate::rows::Reader { source: &source, pool: &pool, waits: false };
    let tensor = |index: usize| -> Result<Tensor> {
        let entry = &source.tensors()[index];
        let (rows, columns) = rows_and_columns(entry.shape());
        let planes = reader.planes(entry, columns, 0, rows)?;
        let mut values = vec![0.0f32; rows * columns];
        decode(entry.element(), &slices(&planes), columns, &mut values)?;
        Ok(Tensor::from_slice(&values, entry.shape().to_vec())?)
    };
    let mut start = Start::new();
    for module in &found.modules {
        if module.form != Form::Linear {
            return Err(refuse(format!("changes {}, which is not a linear map", module.name)));
        }
        let magnitude = module.magnitude.map(tensor).transpose()?;
        start.insert(module.name.clone(), (tensor(module.a)?, tensor(module.b)?, magnitude));
    }
    Ok(start)
}

/// A folder that is to hold the adapter, as PEFT writes it: planned before training, written after it.
pub struct Output {
    path: PathBuf,
    layout: Layout,
    /// Place among the parameters, and module, of every tensor.
    tensors: Vec<(usize, Module)>,
}

impl Output {
    /// Plans the folder, and refuses it where something is that is not to be replaced.
    pub fn plan(
        path: PathBuf,
        parameters: &Parameters,
        adapter: &Adapter,
        model: &Model,
        options: &Options,
    ) -> Result<Output> {
        let mut named = Vec::new();
        for module in &adapter.modules {
            let factors =
                [(Factor::A, Some(module.a)), (Factor::B, Some(module.b)), (Factor::Magnitude, module.magnitude)];
            for (factor, index) in factors {
                let Some((index, parameter)) = index.and_then(|i| Some((i, parameters.get(i)?))) else { continue };
                let name = Style::Peft.tensor_name(&module.name, Form::Linear, factor);
                let shape = parameter.tensor.shape().to_vec();
                named.push((TargetTensor { name, element: DType::F32.into(), shape }, (index, module.clone())));
            }
        }
        named.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (tensors, places): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let config = serde_json::to_vec_pretty(&config(adapter, model, options));
        let config = config.map_err(|e| Error::new(Code::Failed, e.to_string()))?;
        let target = Target { tensors, files: vec![(adapter::CONFIG.into(), config)], ..Target::default() };
        let missing = || Error::new(Code::Failed, "safetensors is not registered");
        let layout = container("safetensors").ok_or_else(missing)?.layout(&target)?;
        check_target(&path, &model.source, &layout, options.overwrite || options.resume)?;
        Ok(Output { path, layout, tensors: places })
    }

    /// Writes the parameters as they are now. Gives the folder.
    pub fn write(self, parameters: &Parameters) -> Result<PathBuf> {
        crate::convert::write_layout(&self.path, &self.layout, |at| {
            let (index, module) = &self.tensors[at];
            let tensor = in_plain_order(parameters, *index, module)?;
            let mut bytes = vec![0; tensor.shape().values() * 4];
            tensor.read(&mut bytes)?;
            Ok(bytes)
        })?;
        Ok(self.path)
    }
}

fn config(adapter: &Adapter, model: &Model, options: &Options) -> serde_json::Value {
    let mut targets: Vec<&str> = adapter.modules.iter().filter_map(|m| m.name.rsplit('.').next()).collect();
    targets.sort_unstable();
    targets.dedup();
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.source.path().display().to_string(),
        "r": options.rank,
        "lora_alpha": options.alpha.unwrap_or(2.0 * options.rank as f64),
        "lora_dropout": options.dropout,
        "target_modules": targets,
        "bias": "none",
        "use_rslora": options.method == "rslora",
        "use_dora": matches!(options.method.as_str(), "dora" | "qdora"),
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}

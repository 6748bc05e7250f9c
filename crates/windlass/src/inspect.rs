//! `inspect`: what is in a model, from its headers alone.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_formats::adapter::Adapter;
use windlass_formats::{Entry, Source};
use windlass_tensor::Value;

use crate::Model;

/// A model, described.
#[derive(Debug, Serialize)]
pub struct Description {
    pub container: String,
    pub version: String,
    pub architecture: Option<String>,
    /// Why there is no architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture_problem: Option<String>,
    /// What it changes, if it is an adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterDescription>,
    /// Number of values in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Number of tensors of each scheme or type.
    pub schemes: BTreeMap<String, usize>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorDescription>>,
    pub files: Vec<String>,
}

/// An adapter, described.
#[derive(Debug, Serialize)]
pub struct AdapterDescription {
    /// `lora`, `dora`, or the method's own name.
    pub method: String,
    /// Number of modules that it changes.
    pub modules: usize,
    /// How many modules have which rank.
    pub ranks: BTreeMap<usize, usize>,
    /// How many modules have which scale.
    pub scales: BTreeMap<String, usize>,
}

/// One tensor, described.
#[derive(Debug, Serialize)]
pub struct TensorDescription {
    pub name: String,
    pub dtype: String,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    pub bytes: u64,
    pub file: String,
    pub offset: u64,
}

/// Describes a model; with `tensors`, each of them too.
pub fn inspect(model: &Model, tensors: bool) -> Description {
    let source = &model.source;
    let mut schemes = BTreeMap::new();
    for entry in source.tensors() {
        *schemes.entry(entry.element().name().to_lowercase()).or_default() += 1;
    }
    Description {
        container: source.container().into(),
        version: source.version().into(),
        architecture: model.identity.as_ref().ok().map(|i| i.architecture.name().to_string()),
        architecture_problem: model.identity.as_ref().err().cloned(),
        adapter: model.adapter.as_ref().map(describe_adapter),
        parameters: source.tensors().iter().map(Entry::values).sum(),
        bytes: source.bytes(),
        schemes,
        metadata: source.metadata().iter().map(|(key, value)| (key.to_string(), summary(value))).collect(),
        tensors: tensors.then(|| source.tensors().iter().map(|e| describe(source, e)).collect()),
        files: source.side_files().keys().cloned().collect(),
    }
}

fn describe_adapter(adapter: &Adapter) -> AdapterDescription {
    let (mut ranks, mut scales) = (BTreeMap::new(), BTreeMap::new());
    for module in &adapter.modules {
        *ranks.entry(module.rank).or_default() += 1;
        *scales.entry(format!("{}", module.scale as f32)).or_default() += 1;
    }
    let dora = adapter.modules.iter().any(|m| m.magnitude.is_some());
    let usual = if dora { "dora" } else { "lora" };
    let method = adapter.settings.not_lora().unwrap_or_else(|| usual.into());
    AdapterDescription { method, modules: adapter.modules.len(), ranks, scales }
}

fn describe(source: &Source, entry: &Entry) -> TensorDescription {
    let first = entry.planes().first();
    let part = first.and_then(|extent| source.parts().get(extent.part));
    let file = part.and_then(|p| p.path().file_name()).map(|n| n.to_string_lossy().into_owned());
    TensorDescription {
        name: entry.name().into(),
        dtype: entry.element().name().into(),
        shape: entry.shape().to_vec(),
        bytes: entry.bytes(),
        file: file.unwrap_or_default(),
        offset: first.map_or(0, |extent| extent.offset),
    }
}

/// A value for people and scripts; long lists and texts (vocabularies, templates, files) are shortened.
fn summary(value: &Value) -> serde_json::Value {
    const ITEMS: usize = 8;
    const TEXT: usize = 200;
    match value {
        Value::Bool(v) => (*v).into(),
        Value::F32(v) => f64::from(*v).into(),
        Value::F64(v) => (*v).into(),
        Value::String(v) if v.chars().count() > TEXT => {
            let head: String = v.chars().take(TEXT).collect();
            format!("{head}... ({} bytes)", v.len()).into()
        }
        Value::String(v) => v.clone().into(),
        Value::Array(v) if v.len() > ITEMS => format!("[{} items]", v.len()).into(),
        Value::Array(v) => (0..v.len()).filter_map(|i| v.get(i)).map(|v| summary(&v)).collect::<Vec<_>>().into(),
        other => match (other.as_u64(), other.as_i64()) {
            (Some(v), _) => v.into(),
            (_, Some(v)) => v.into(),
            _ => serde_json::Value::Null,
        },
    }
}

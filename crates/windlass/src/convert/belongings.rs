//! What belongs to a model beside its tensors, carried from container to container.
//!
//! What the target cannot say travels in `windlass.*` keys: the side files of a folder as they were, the element types of
//! the source, and the keys of a safetensors header. They are taken out again on the way back, so that there and back is
//! equal.

use std::collections::BTreeMap;

use windlass_catalog::Convention;
use windlass_formats::Source;
use windlass_tensor::{Array, Bytes, DType, Element, Limits, Metadata, Value};
use windlass_text::HfFiles;

use super::foreign;
use super::names::Output;
use crate::{Error, Result, model::Identity};

const FILE: &str = "windlass.file.";
pub(super) const HEADER: &str = "windlass.header.";
pub(super) const DTYPE: &str = "windlass.dtype";
pub(super) const EXCEPTIONS: &str = "windlass.dtype.exceptions";
pub(super) const VERSION: &str = "windlass.version";
pub(super) const KEY: &str = "windlass.gguf.";

/// Side files and metadata of a target.
#[derive(Debug, Default)]
pub struct Belongings {
    pub metadata: Metadata,
    pub files: Vec<(String, Vec<u8>)>,
    /// What could not be carried, for the user to know.
    pub warnings: Vec<String>,
}

/// Side files of a source: those of its folder, or those that travelled in its keys.
pub fn side_files(source: &Source, limits: &Limits) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for name in source.side_files().keys() {
        if let Some(bytes) = source.side_file(name, limits)? {
            files.insert(name.clone(), bytes);
        }
    }
    for (key, value) in source.metadata().iter() {
        let Some(name) = key.strip_prefix(FILE).filter(|name| is_carried(name)) else { continue };
        // What lies in the folder is newer than what travelled, but for the file that MLX had to change.
        if files.contains_key(name) && (source.container() != "mlx" || name != "config.json") {
            continue;
        }
        match value {
            Value::String(text) => files.insert(name.into(), text.clone().into_bytes()),
            Value::Array(Array::U8(bytes)) => files.insert(name.into(), bytes.clone()),
            _ => None,
        };
    }
    Ok(files)
}

/// A name from a file is only believed if it stays in the folder it is written to.
fn is_carried(name: &str) -> bool {
    let plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0', ':']);
    let known = plain && windlass_formats::safetensors::is_side_file(name) && !is_code(name);
    known || windlass_formats::safetensors::is_module_file(name)
}

/// Whether a side file would be run by the program that loads the model.
fn is_code(name: &str) -> bool {
    name.ends_with(".py")
}

/// Element types that tensors had before they came into this source, by name in Hugging Face's convention.
pub struct Originals {
    default: Option<DType>,
    exceptions: BTreeMap<String, DType>,
}

impl Originals {
    /// As recorded in the source's keys.
    pub fn of(source: &Source) -> Originals {
        let default = source.metadata().get(DTYPE).and_then(Value::as_str).and_then(DType::from_name);
        let exceptions = source.metadata().get(EXCEPTIONS);
        let list = exceptions.and_then(Value::as_array).and_then(Array::as_strings).into_iter().flat_map(|l| l.iter());
        // A safetensors header holds texts only: one line for each.
        let lines = exceptions.and_then(Value::as_str).unwrap_or_default().lines();
        let pair = |item: &str| {
            let (name, dtype) = item.rsplit_once('=')?;
            Some((name.to_string(), DType::from_name(dtype)?))
        };
        Originals { default, exceptions: list.chain(lines).filter_map(pair).collect() }
    }

    /// The type that most values had, if it was recorded.
    pub fn most(&self) -> Option<DType> {
        self.default
    }

    /// Whether anything was recorded.
    pub fn known(&self) -> bool {
        self.default.is_some()
    }

    /// The type of the tensor that is called `name` in the target, if it was recorded.
    pub fn get(&self, name: &str) -> Option<DType> {
        self.exceptions.get(name).copied().or(self.default)
    }
}

/// The float type that most values of a source have; quantized ones count as what they decode to.
pub fn dominant_float(source: &Source) -> Option<DType> {
    let mut counts: BTreeMap<DType, u64> = BTreeMap::new();
    for entry in source.tensors() {
        let dtype = match entry.element() {
            Element::Plain(dtype) => Some(*dtype),
            packed => crate::rows::packing(packed).filter(|_| source.container() != "gguf").map(|p| p.float),
        };
        if let Some(dtype) = dtype.filter(|d| d.is_float()) {
            *counts.entry(dtype).or_default() += entry.values();
        }
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(dtype, _)| dtype)
}

/// Everything for a GGUF target.
pub fn for_gguf(
    source: &Source,
    files: &BTreeMap<String, Vec<u8>>,
    identity: Option<&Identity>,
    outputs: &[Output],
    vocabulary: usize,
    limits: &Limits,
) -> Result<Belongings> {
    if source.container() == "gguf" {
        let keep = source.metadata().iter().filter(|(k, _)| !k.starts_with("split."));
        let metadata = keep.map(|(k, v)| (k.to_string(), v.clone())).collect();
        return Ok(Belongings { metadata, ..Belongings::default() });
    }
    let mut belongings = Belongings::default();
    let Some(identity) = identity else {
        let message = "there is no config.json, so the GGUF does not say its architecture and no program can run it: give \
            --config-from DIR";
        belongings.warnings.push(message.into());
        record(source, outputs, files, &mut belongings, limits);
        return Ok(belongings);
    };
    let architecture = identity.architecture;
    belongings.metadata = architecture.to_gguf(&identity.hyper);
    belongings.metadata.set("general.name", name_of(source));
    let hf = hf_files(files);
    if hf.tokenizer_json.is_empty() {
        let rows = u32::try_from(vocabulary).unwrap_or(u32::MAX);
        belongings.metadata.set(format!("{}.vocab_size", architecture.gguf_name()), rows);
        belongings
            .warnings
            .push("there is no tokenizer.json, so the GGUF has no vocabulary: it cannot be run on text".into());
    } else {
        let (keys, warnings) = windlass_text::to_gguf(&hf, vocabulary, architecture.gguf_name(), limits)
            .map_err(|e| Error::from(e).at(source.path()))?;
        belongings.warnings.extend(warnings);
        keys.iter().for_each(|(key, value)| belongings.metadata.set(key, value.clone()));
    }
    for (key, value) in original_header(source).iter() {
        if let Some((key, value)) = key.strip_prefix(KEY).zip(value.as_str().and_then(foreign::read)) {
            belongings.metadata.set(key, value);
        }
    }
    record(source, outputs, files, &mut belongings, limits);
    let kept =
        super::shifted::keep(source, outputs)?.into_iter().chain(super::buffers::keep(source, identity, outputs)?);
    kept.for_each(|(key, value)| belongings.metadata.set(key, value));
    Ok(belongings)
}

/// Everything for a folder of safetensors, Hugging Face's or MLX's.
pub fn for_folder(
    source: &Source,
    mut files: BTreeMap<String, Vec<u8>>,
    identity: Option<&Identity>,
    to: Convention,
    limits: &Limits,
) -> Result<Belongings> {
    let mut belongings = Belongings::default();
    if source.container() == "gguf" && !files.contains_key("config.json") {
        files.extend(files_from_gguf(source, identity, limits, &mut belongings.warnings)?);
    }
    let mut header = original_header(source);
    if source.container() == "gguf" && source.metadata().get(VERSION).is_none() {
        let keys = source.metadata().iter().filter(|(key, _)| !key.starts_with("tokenizer."));
        for (key, value) in keys {
            match foreign::write(value) {
                Some(text) => header.set(format!("{KEY}{key}"), text),
                None => belongings.warnings.push(format!("the key {key} is too long a list to be carried along")),
            }
        }
    }
    let code = source.metadata().iter().filter_map(|(key, _)| key.strip_prefix(FILE)).filter(|name| is_code(name));
    belongings.warnings.extend(code.map(|name| format!("{name} is code, and code of a GGUF is never written")));
    if to == Convention::Mlx {
        belongings.metadata.set("format", "mlx");
        header.iter().for_each(|(key, value)| belongings.metadata.set(format!("{HEADER}{key}"), value.clone()));
        if let Some(config) = files.get("config.json").and_then(|c| std::str::from_utf8(c).ok()) {
            belongings.metadata.set(format!("{FILE}config.json"), config);
        }
    } else {
        belongings.metadata = header;
        if let Some(config) = files.get_mut("config.json") {
            drop_quantization(config);
        }
    }
    belongings.files = files.into_iter().collect();
    Ok(belongings)
}

/// The `__metadata__` that a safetensors file had before it was converted to `source`, or has.
pub(super) fn original_header(source: &Source) -> Metadata {
    let carried = matches!(source.container(), "gguf" | "mlx");
    let own = |key: &str| {
        if carried {
            key.strip_prefix(HEADER).map(String::from)
        } else {
            (!key.starts_with("windlass.") || key.starts_with(KEY)).then(|| key.into())
        }
    };
    source.metadata().iter().filter_map(|(key, value)| Some((own(key)?, value.clone()))).collect()
}

/// Takes MLX's description of its packing out of a config.json; leaves the text as it is where there is none.
fn drop_quantization(config: &mut Vec<u8>) {
    let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(config) else { return };
    if object.get("quantization").is_some() {
        object.shift_remove("quantization");
        object.shift_remove("quantization_config");
        *config = pretty(&serde_json::Value::Object(object));
    }
}

/// Config and tokenizer for a GGUF that was made elsewhere.
fn files_from_gguf(
    source: &Source,
    identity: Option<&Identity>,
    limits: &Limits,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    if let Some(identity) = identity {
        let config = identity.architecture.to_hf_config(&identity.hyper);
        files.push(("config.json".to_string(), pretty(&config)));
    }
    if source.metadata().get("tokenizer.ggml.tokens").is_none() {
        warnings.push("the GGUF has no vocabulary, so there is no tokenizer.json".into());
        return Ok(files);
    }
    let hf = windlass_text::to_hf(source.metadata(), limits).map_err(|e| Error::from(e).at(source.path()))?;
    files.push(("tokenizer.json".into(), hf.tokenizer_json));
    let optional = [
        ("tokenizer_config.json", hf.tokenizer_config_json),
        ("special_tokens_map.json", hf.special_tokens_map_json),
        ("generation_config.json", hf.generation_config_json),
        ("chat_template.jinja", hf.chat_template_jinja),
    ];
    files.extend(optional.into_iter().filter_map(|(name, bytes)| Some((name.to_string(), bytes?))));
    Ok(files)
}

/// Writes down what GGUF has no words for.
pub(super) fn record(
    source: &Source,
    outputs: &[Output],
    files: &BTreeMap<String, Vec<u8>>,
    belongings: &mut Belongings,
    limits: &Limits,
) {
    let keys = &mut belongings.metadata;
    keys.set(VERSION, env!("CARGO_PKG_VERSION"));
    if let Some(dtype) = dominant_float(source) {
        keys.set(DTYPE, dtype.name());
        let exceptions: Vec<String> = source_dtypes(source, outputs)
            .filter(|(_, d)| *d != dtype)
            .map(|(name, d)| format!("{name}={d}"))
            .collect();
        if !exceptions.is_empty() {
            keys.set(EXCEPTIONS, Array::strings(exceptions));
        }
    }
    let own = |key: &str| key.starts_with(FILE) || key.starts_with(KEY);
    for (key, value) in original_header(source).iter().filter(|(k, _)| !own(k)) {
        keys.set(format!("{HEADER}{key}"), value.clone());
    }
    // What else the header has (a vocabulary) takes less than the file it was made from.
    let mut room = limits.header_bytes / 2;
    let mut smallest_first: Vec<(&String, &Vec<u8>)> = files.iter().collect();
    smallest_first.sort_by_key(|(_, bytes)| bytes.len());
    for (name, bytes) in smallest_first {
        if is_code(name) {
            belongings.warnings.push(format!("{name} is code: it is not carried in a GGUF, and does not come back"));
            continue;
        }
        let size = bytes.len() as u64;
        if size > room {
            let why = format!("{name} has {}, too much for the header of a GGUF", Bytes(size));
            belongings.warnings.push(format!("{why}: it is not carried, and does not come back"));
            continue;
        }
        room -= size;
        let value = match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => Value::Array(Array::U8(bytes.clone())),
        };
        keys.set(format!("{FILE}{name}"), value);
    }
}

pub(super) fn source_dtypes<'a>(source: &'a Source, outputs: &'a [Output]) -> impl Iterator<Item = (&'a str, DType)> {
    let entries: std::collections::BTreeSet<usize> = outputs.iter().flat_map(|o| o.content.entries()).collect();
    entries.into_iter().filter_map(|i| {
        let entry = &source.tensors()[i];
        Some((entry.name(), entry.element().dtype()?))
    })
}

fn hf_files(files: &BTreeMap<String, Vec<u8>>) -> HfFiles {
    let file = |name: &str| files.get(name).cloned();
    HfFiles {
        tokenizer_json: file("tokenizer.json").unwrap_or_default(),
        tokenizer_config_json: file("tokenizer_config.json"),
        special_tokens_map_json: file("special_tokens_map.json"),
        generation_config_json: file("generation_config.json"),
        chat_template_jinja: file("chat_template.jinja"),
        config_json: file("config.json"),
    }
}

pub(super) fn name_of(source: &Source) -> String {
    let path = source.path().canonicalize().unwrap_or_else(|_| source.path().into());
    path.file_name().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn pretty(json: &serde_json::Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(json).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

//! `model.safetensors.index.json`: which part holds which tensor.

use std::collections::HashMap;

use windlass_tensor::Limits;

use crate::Problem;
use crate::json::{self, Unique, quote_ascii, short};

/// Name of the index of a folder.
pub const INDEX: &str = "model.safetensors.index.json";

/// A checked index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Tensor to part, in the order of the file.
    pub weight_map: Vec<(String, String)>,
    /// Bytes of all tensors, where the index says it.
    pub total_size: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Raw {
    #[serde(default)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    weight_map: Unique<String>,
}

impl Index {
    /// Parses the JSON. Part names must be plain names of safetensors files.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Index, Problem> {
        Index::of_parts(text, ".safetensors", limits)
    }

    /// Parses the index of parts whose names end in `extension`.
    pub(crate) fn of_parts(text: &[u8], extension: &str, limits: &Limits) -> Result<Index, Problem> {
        let bad = |message: String| Problem::new("bad-index", message);
        json::check_depth(text, limits.nesting).map_err(bad)?;
        let raw: Raw = serde_json::from_slice(text).map_err(|e| bad(format!("the index is not valid: {e}")))?;
        for (tensor, part) in &raw.weight_map.0 {
            if !is_plain_name(part, extension) {
                let message = format!("part {:?} is not a plain file name ending in {extension}", short(part));
                return Err(Problem::new("bad-part-name", message).tensor(tensor));
            }
        }
        // Older writers put a float here.
        let total = raw.metadata.as_ref().and_then(|m| m.get("total_size"));
        let total_size = total.and_then(|v| v.as_u64().or_else(|| whole(v.as_f64()?)));
        Ok(Index { weight_map: raw.weight_map.0, total_size })
    }

    /// Names of the parts, each once, in order of name.
    pub fn parts(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = self.weight_map.iter().map(|(_, part)| part.as_str()).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Compares the index with what the parts hold: a list of (part, tensor).
    pub fn check(&self, found: &[(&str, &str)]) -> Result<(), Problem> {
        let mut places: HashMap<&str, &str> = HashMap::new();
        let listed: HashMap<&str, &str> = self.weight_map.iter().map(|(t, p)| (t.as_str(), p.as_str())).collect();
        for (part, tensor) in found {
            if listed.get(tensor) == Some(part) {
                places.insert(tensor, part);
                continue;
            }
            let message = match listed.get(tensor) {
                Some(other) => format!("is in {part:?}, the index says {:?}", short(other)),
                None => format!("is in {part:?} but not in the index"),
            };
            return Err(Problem::new("not-in-index", message).tensor(tensor).help(MIXED));
        }
        for (tensor, part) in &self.weight_map {
            if places.get(tensor.as_str()) != Some(&part.as_str()) {
                let message = format!("the index says it is in {:?}, which does not hold it", short(part));
                return Err(Problem::new("not-in-part", message).tensor(tensor).help(MIXED));
            }
        }
        Ok(())
    }
}

const MIXED: &str = "index and parts are of different versions of the model: download all of them again";

/// The text of an index as transformers writes it: sorted keys, `indent` spaces, ASCII. `weight_map` is tensor to part.
pub fn write(weight_map: &[(&str, &str)], total_size: u64, total_parameters: u64, indent: usize) -> String {
    let (one, two) = (" ".repeat(indent), " ".repeat(2 * indent));
    let mut sorted = weight_map.to_vec();
    sorted.sort_unstable();
    let lines = sorted.iter().map(|(tensor, part)| format!("{two}{}: {}", quote_ascii(tensor), quote_ascii(part)));
    let lines: Vec<String> = lines.collect();
    format!(
        "{{\n{one}\"metadata\": {{\n{two}\"total_parameters\": {total_parameters},\n{two}\"total_size\": {total_size}\n\
         {one}}},\n{one}\"weight_map\": {{\n{}\n{one}}}\n}}\n",
        lines.join(",\n")
    )
}

/// Whether this names a file of the same folder, and nothing else.
fn is_plain_name(name: &str, extension: &str) -> bool {
    let strange = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    name.len() <= 255 && name.ends_with(extension) && !name.starts_with('.') && !name.contains(strange)
}

fn whole(value: f64) -> Option<u64> {
    (value >= 0.0 && value.fract() == 0.0 && value < 2f64.powi(53)).then_some(value as u64)
}

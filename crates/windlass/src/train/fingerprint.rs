//! What tells one training from another: base, data, and the settings that its losses depend on.

use serde_json::{Map, Value as Json};
use twox_hash::XxHash3_128 as Xxh3;
use windlass_train::data::Data;

use super::Options;
use crate::{Code, Error, Model, Result};

/// Bytes that are looked at in the middle of every tensor of the base.
const SAMPLE: u64 = 1024;

/// Everything that must be the same for a training to go on, by name. Base and data count by what is in them.
pub fn settings(
    options: &Options,
    context: usize,
    steps: u64,
    model: &Model,
    data: &Data,
) -> Result<Map<String, Json>> {
    let all = serde_json::to_value(options).map_err(|e| Error::new(Code::Failed, e.to_string()))?;
    let Json::Object(mut all) = all else { return Ok(Map::new()) };
    all.remove("epochs");
    all.insert("context".into(), context.into());
    // A constant rate does not look at the end: such a training can be made longer.
    all.insert("steps".into(), if options.scheduler == "constant" { Json::Null } else { steps.into() });
    all.insert("model".into(), base(model)?.into());
    all.insert("data".into(), format!("{:032x}", data.fingerprint()).into());
    // As they are after a way through a file: a number may change in its last digit there.
    let text = Json::Object(all).to_string();
    serde_json::from_str(&text).map_err(|e| Error::new(Code::Failed, e.to_string()))
}

/// The first setting that differs: its name, its value in `known`, its value in `here`. One that the other does not know
/// has the value that was usual before it could be set.
pub fn difference(known: &Map<String, Json>, here: &Map<String, Json>) -> Option<(String, String, String)> {
    let usual = serde_json::to_value(Options::default()).unwrap_or_default();
    let text = |all: &Map<String, Json>, name: &str| match all.get(name).or_else(|| usual.get(name)) {
        Some(value) => value.to_string(),
        None => "unknown".into(),
    };
    let names = here.keys().chain(known.keys());
    names.map(|name| (name.clone(), text(known, name), text(here, name))).find(|(_, a, b)| a != b)
}

/// Names, elements and shapes of a model's tensors, and some bytes of each.
fn base(model: &Model) -> Result<String> {
    let mut hasher = Xxh3::new();
    let mut entries: Vec<_> = model.source.tensors().iter().collect();
    entries.sort_by_key(|entry| entry.name());
    for entry in entries {
        hasher.write(format!("{} {} {:?};", entry.name(), entry.element().name(), entry.shape()).as_bytes());
        for (plane, extent) in entry.planes().iter().enumerate() {
            let mut bytes = vec![0; extent.length.min(SAMPLE) as usize];
            model.source.read(entry, plane, (extent.length - bytes.len() as u64) / 2, &mut bytes)?;
            hasher.write(&bytes);
        }
    }
    Ok(format!("{:032x}", hasher.finish_128()))
}

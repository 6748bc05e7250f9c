//! The models of golden/inventory.json.

use serde_json::Value as Json;

pub struct Case {
    pub name: String,
    pub data: Json,
}

impl Case {
    pub fn config(&self) -> &Json {
        &self.data["config"]
    }
}

pub fn cases() -> Vec<Case> {
    let all: Json = serde_json::from_str(include_str!("../golden/inventory.json")).unwrap();
    let cases = all.as_object().unwrap().iter().map(|(name, data)| Case { name: name.clone(), data: data.clone() });
    cases.collect()
}

/// The same config.json as transformers 4 wrote it: rotary settings at the top, `torch_dtype`, a pattern instead of a list of layers.
#[allow(dead_code)]
pub fn as_transformers_4(config: &Json) -> Json {
    let mut old = config.as_object().unwrap().clone();
    let mut rope = old.remove("rope_parameters").map(|r| r.as_object().unwrap().clone()).unwrap_or_default();
    if let Some(local) = rope.remove("sliding_attention") {
        old.insert("rope_local_base_freq".into(), local["rope_theta"].clone());
        rope = rope["full_attention"].as_object().unwrap().clone();
    }
    for key in ["rope_theta", "partial_rotary_factor"] {
        if let Some(value) = rope.remove(key) {
            old.insert(key.into(), value);
        }
    }
    if rope.get("rope_type").is_some_and(|kind| kind != "default") {
        let kind = rope.remove("rope_type").unwrap();
        rope.insert(if kind == "longrope" || kind == "linear" { "type" } else { "rope_type" }.into(), kind);
        old.insert("rope_scaling".into(), rope.into());
    }
    if let Some(experts) = old.get("moe_intermediate_size").and_then(|_| config.get("num_local_experts")) {
        old.insert("num_experts".into(), experts.clone());
        old.remove("num_local_experts");
    }
    old.remove("layer_types");
    if let Some(pattern) = old.remove("_sliding_window_pattern") {
        old.insert("sliding_window_pattern".into(), pattern);
    }
    let dtype = old.remove("dtype").unwrap_or_default();
    old.insert("torch_dtype".into(), dtype);
    old.into()
}

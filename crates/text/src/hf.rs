//! The files of a Hugging Face tokenizer, and how they follow from a GGUF made elsewhere.

use serde_json::{Map, Value, json};
use windlass_tensor::{Array, Limits, Metadata};

use crate::gguf::vocabulary::Vocabulary;
use crate::gguf::{self, SPECIAL, key};
use crate::{Error, validate};

/// The files beside a model that concern its tokenizer, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HfFiles {
    /// tokenizer.json.
    pub tokenizer_json: Vec<u8>,
    /// tokenizer_config.json: special tokens by name, chat template, flags.
    pub tokenizer_config_json: Option<Vec<u8>>,
    /// special_tokens_map.json: special tokens by name.
    pub special_tokens_map_json: Option<Vec<u8>>,
    /// generation_config.json: ids of special tokens.
    pub generation_config_json: Option<Vec<u8>>,
    /// chat_template.jinja, which goes before the template in tokenizer_config.json.
    pub chat_template_jinja: Option<Vec<u8>>,
    /// The model's config.json, which may name ids that the other files do not.
    pub config_json: Option<Vec<u8>>,
}

/// Writes the files that the `tokenizer.*` keys of a GGUF stand for. The model's own config.json is not among them.
pub fn to_hf(metadata: &Metadata, limits: &Limits) -> Result<HfFiles, Error> {
    let gguf::Read { mut json, vocabulary } = gguf::read(metadata, limits)?;
    // What is written here must be readable here.
    validate::check(&mut json, limits)?;
    let specials = special_tokens(&vocabulary, &json);
    let config = tokenizer_config(metadata, &vocabulary, &json, &specials, limits)?;
    Ok(HfFiles {
        tokenizer_json: bytes(&json)?,
        tokenizer_config_json: Some(bytes(&config)?),
        special_tokens_map_json: Some(bytes(&Value::Object(specials))?),
        generation_config_json: Some(bytes(&generation_config(&vocabulary))?),
        chat_template_jinja: None,
        config_json: None,
    })
}

fn bytes(value: &Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::Json { file: "the JSON being written", message: e.to_string() })
}

/// `bos_token` and the like, as the tokenizer.json spells them.
fn special_tokens(vocabulary: &Vocabulary, tokenizer: &Value) -> Map<String, Value> {
    let added = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let content = |id: u32| {
        let added = added.iter().find(|token| token["id"] == id).map(|token| token["content"].clone());
        added.or_else(|| Some(json!(vocabulary.tokens.get(id as usize)?)))
    };
    // End of turn and of message have no place among Hugging Face's special tokens.
    let named = SPECIAL.iter().filter(|(name, _)| !matches!(*name, "eot" | "eom"));
    named.filter_map(|(name, _)| Some((format!("{name}_token"), content(vocabulary.id(name)?)?))).collect()
}

fn tokenizer_config(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    tokenizer: &Value,
    specials: &Map<String, Value>,
    limits: &Limits,
) -> Result<Value, Error> {
    let mut config = Map::new();
    config.insert("add_bos_token".to_owned(), json!(vocabulary.add_bos));
    config.insert("add_eos_token".to_owned(), json!(vocabulary.add_eos));
    let mut decoder = Map::new();
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let mut token = token.clone();
        if let Some(id) = token.as_object_mut().and_then(|fields| fields.shift_remove("id")) {
            decoder.insert(id.to_string(), token);
        }
    }
    config.insert("added_tokens_decoder".to_owned(), Value::Object(decoder));
    config.extend(specials.clone());
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    let architecture = metadata.get("general.architecture").and_then(|v| v.as_str());
    if let Some(context) = architecture.and_then(|a| metadata.get(&format!("{a}.context_length"))?.as_u64()) {
        config.insert("model_max_length".to_owned(), json!(context));
    }
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    if let Some(template) = chat_template(metadata, limits)? {
        config.insert("chat_template".to_owned(), template);
    }
    Ok(Value::Object(config))
}

/// One template as text, several as a list of names and templates.
fn chat_template(metadata: &Metadata, limits: &Limits) -> Result<Option<Value>, Error> {
    let template = |key: &str| match metadata.get(key) {
        None => Ok(None),
        Some(value) => {
            let text = value.as_str().ok_or_else(|| Error::invalid(key, "expected a string"))?;
            crate::error::bound(|| key.to_owned(), text.len(), limits.string_bytes)?;
            Ok(Some(text))
        }
    };
    let default = template(key::CHAT_TEMPLATE)?;
    let names = metadata.get(key::CHAT_TEMPLATES).and_then(|v| v.as_array()).and_then(Array::as_strings);
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        return Ok(default.map(|text| json!(text)));
    };
    let mut list: Vec<Value> = default.iter().map(|text| json!({"name": "default", "template": text})).collect();
    for name in names.iter() {
        if let Some(text) = template(&format!("{}.{name}", key::CHAT_TEMPLATE))? {
            list.push(json!({"name": name, "template": text}));
        }
    }
    Ok(Some(Value::Array(list)))
}

fn generation_config(vocabulary: &Vocabulary) -> Value {
    let mut config = Map::new();
    if let Some(id) = vocabulary.id("bos") {
        config.insert("bos_token_id".to_owned(), json!(id));
    }
    let mut ends: Vec<u32> = ["eos", "eot", "eom"].iter().filter_map(|name| vocabulary.id(name)).collect();
    ends.dedup();
    match ends.as_slice() {
        [] => {}
        [one] => drop(config.insert("eos_token_id".to_owned(), json!(one))),
        several => drop(config.insert("eos_token_id".to_owned(), json!(several))),
    }
    if let Some(id) = vocabulary.id("pad") {
        config.insert("pad_token_id".to_owned(), json!(id));
    }
    Value::Object(config)
}

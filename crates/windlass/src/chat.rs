//! `chat`: a conversation in the words that the model was trained on.

use serde_json::{Map, Value as Json};
use windlass_generate::{BATCH, Chat, Template};
use windlass_tensor::{Element, Limits};
use windlass_text::Tokenizer;

use crate::load::{Loaded, Run};
use crate::{Code, Error, Model, Result};

/// A conversation with a loaded model that fills its whole context.
pub fn chat<'a>(
    model: &Model,
    loaded: &'a Loaded,
    tokenizer: &'a Tokenizer,
    cache: Element,
    limits: &'a Limits,
) -> Result<Chat<'a>> {
    let run = Run { context: loaded.context, element: cache, batch: BATCH.min(loaded.context), logits: 1 };
    Ok(Chat::new(&loaded.decoder, loaded.cache(&run)?, tokenizer, template(model, limits)?, limits))
}

/// The chat template of a model, with the special tokens that it may mention.
pub fn template(model: &Model, limits: &Limits) -> Result<Template> {
    let files = model.side_files(limits)?;
    let mut config = files.get("tokenizer_config.json").cloned();
    if config.is_none() && model.source.container() == "gguf" {
        let written = windlass_text::to_hf(model.source.metadata(), limits);
        config = written.map_err(|e| Error::from(e).at(model.source.path()))?.tokenizer_config_json;
    }
    let config: Json = config.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let alone = files.get("chat_template.jinja").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let program = alone.or_else(|| program(&config["chat_template"])).ok_or_else(|| {
        let message = format!("{} has no chat template", model.source.path().display());
        let help = "models that were not trained to converse go on with a text: see `windlass help generate`";
        Error::new(Code::Refused, message).at(model.source.path()).help(help)
    })?;
    let special = |name: &str| match &config[name] {
        Json::String(text) => Some(text.clone()),
        token => token["content"].as_str().map(String::from),
    };
    let names = ["bos_token", "eos_token", "unk_token", "pad_token"];
    let variables: Map<String, Json> =
        names.into_iter().filter_map(|name| Some((name.to_string(), special(name)?.into()))).collect();
    Ok(Template { program, variables })
}

/// One template, or the one called `default` of several.
fn program(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Array(all) => {
            let default = all.iter().find(|one| one["name"] == "default").or(all.first())?;
            default["template"].as_str().map(String::from)
        }
        _ => None,
    }
}

/// Tokens by which models end their turn, whatever their files say about it.
const ENDS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>"];

/// The tokens that end an answer: those that end a text, and those by which turns end.
pub fn end_tokens(model: &Model, tokenizer: &Tokenizer, template: &Template, limits: &Limits) -> Result<Vec<u32>> {
    let mut end = crate::generate::end_tokens(model, limits)?;
    let named = template.variables.get("eos_token").and_then(Json::as_str);
    let of_turns = ENDS.into_iter().chain(named).filter_map(|piece| tokenizer.token(piece));
    end.extend(of_turns.filter(|token| tokenizer.is_special(*token)));
    end.sort_unstable();
    end.dedup();
    Ok(end)
}

//! `embed`: a text as one vector.

use serde::Serialize;
use serde_json::Value as Json;
use windlass_models::Pooling;
use windlass_ops::Context;
use windlass_tensor::{DType, Limits, Tensor, TypedTensor, Value};

use crate::load::{self, load, load_encoder};
use crate::{Code, Error, Model, Result};

/// Most tokens of a decoder's text that are run at a time.
const BATCH: usize = 512;

/// How to embed; what is `None` is as the model's files say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub pooling: Option<Pooling>,
    /// Whether the vector is made to have length one.
    pub normalize: Option<bool>,
    /// Whether a text that is too long is cut instead of refused.
    pub truncate: bool,
}

/// The vector, and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub embedding: Vec<f32>,
    /// Tokens of the text, with those that the model wants around it.
    pub tokens: usize,
    pub dimensions: usize,
    /// `mean`, `cls`, `last`, `max`.
    pub pooling: &'static str,
    pub normalized: bool,
    /// Whether the end of the text was left out.
    pub truncated: bool,
}

/// What the files of a model say about its embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub pooling: Option<Pooling>,
    pub normalize: Option<bool>,
    /// Most tokens of a text.
    pub tokens: Option<usize>,
}

/// Embeds a text with an encoder, or with a decoder whose states are pooled.
pub fn embed(cx: &Context, model: &Model, text: &str, options: &Options, limits: &Limits) -> Result<Report> {
    let declared = declared(model, limits)?;
    let hyper = &model.identity()?.hyper;
    let most = declared.tokens.unwrap_or(usize::MAX).min(hyper.context());
    let mut tokens = model.tokenizer(limits)?.encode(text, true)?;
    let truncated = cut(&mut tokens, most, options.truncate)?;
    let states = if hyper.causal() { decoded(cx, model, &tokens)? } else { encoded(cx, model, &tokens)? };
    let pooling = options.pooling.or(declared.pooling);
    let pooling = pooling.unwrap_or(if hyper.causal() { Pooling::Last } else { Pooling::Mean });
    // llama.cpp gives vectors of length one, and a GGUF has no place to say otherwise.
    let normalized = options.normalize.or(declared.normalize).unwrap_or(model.source.container() == "gguf");
    let mut embedding = pooling.pool(&states, hyper.hidden());
    if embedding.iter().any(|v| !v.is_finite()) {
        let message =
            "the model gives something that is not a number: its weights are damaged, or its numbers overflow";
        return Err(Error::new(Code::Refused, message).at(model.source.path()));
    }
    if normalized {
        let length = embedding.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        embedding.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    let (dimensions, pooling) = (embedding.len(), pooling.name());
    Ok(Report { embedding, tokens: tokens.len(), dimensions, pooling, normalized, truncated })
}

/// Leaves out what is in front of the last token, which ends a text, where there are too many.
fn cut(tokens: &mut Vec<u32>, most: usize, truncate: bool) -> Result<bool> {
    match (tokens.len(), tokens.last().copied()) {
        (0, _) | (_, None) => Err(Error::usage("the text has no tokens")),
        (n, _) if n <= most => Ok(false),
        (n, _) if !truncate => {
            let message = format!("the text has {n} tokens, the model takes {most}");
            Err(Error::usage(message).help("give a shorter text, or --truncate to leave out its end"))
        }
        (_, Some(last)) => {
            tokens.truncate(most.saturating_sub(1));
            tokens.push(last);
            Ok(true)
        }
    }
}

fn encoded(cx: &Context, model: &Model, tokens: &[u32]) -> Result<Vec<f32>> {
    let encoder = load_encoder(model)?;
    values(encoder.forward(cx, tokens)?)
}

fn decoded(cx: &Context, model: &Model, tokens: &[u32]) -> Result<Vec<f32>> {
    let loaded = load(model, &load::Options { context: Some(tokens.len()), ..load::Options::default() })?;
    let mut cache = loaded.decoder.cache(tokens.len(), DType::F32)?;
    let mut all = Vec::new();
    for batch in tokens.chunks(BATCH) {
        all.extend(values(loaded.decoder.states(cx, batch, &mut cache)?)?);
    }
    Ok(all)
}

fn values(states: Tensor) -> Result<Vec<f32>> {
    Ok(TypedTensor::<f32>::new(states)?.to_vec()?)
}

/// Reads what sentence-transformers (`modules.json` and what it names) or a GGUF say.
pub fn declared(model: &Model, limits: &Limits) -> Result<Declared> {
    let mut declared = Declared::default();
    let path = model.source.path();
    let side_files = model.side_files(limits)?;
    let json = |name: &str| side_files.get(name).and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
    let architecture = model.identity.as_ref().map(|identity| identity.architecture.gguf_name()).unwrap_or_default();
    if let Some(number) = model.source.metadata().get(&format!("{architecture}.pooling_type")).and_then(Value::as_u64) {
        declared.pooling = match number {
            0 => None,
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::Cls),
            3 => Some(Pooling::Last),
            other => return Err(unsupported(path, &format!("pooling of type {other}"))),
        };
    }
    let length = json("sentence_bert_config.json").and_then(|json| json["max_seq_length"].as_u64());
    declared.tokens = length.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let Some(Json::Array(modules)) = json("modules.json") else { return Ok(declared) };
    declared.normalize = Some(false);
    for module in &modules {
        let kind = module["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        match kind {
            "Transformer" => {}
            "Normalize" => declared.normalize = Some(true),
            "Pooling" => {
                let name = format!("{}/config.json", module["path"].as_str().unwrap_or_default());
                let found = json(&name).map(|config| pooling(path, &config)).transpose()?;
                declared.pooling = found.or(declared.pooling);
            }
            other => return Err(unsupported(path, &format!("a module {other:?} after the model"))),
        }
    }
    Ok(declared)
}

/// The key of a GGUF that says how states are pooled, where the model's files do.
pub(crate) fn pooling_key(model: &Model, limits: &Limits) -> Option<(String, u32)> {
    let architecture = model.identity.as_ref().ok()?.architecture.gguf_name();
    let number = match declared(model, limits).ok()?.pooling? {
        Pooling::Mean => 1,
        Pooling::Cls => 2,
        Pooling::Last => 3,
        Pooling::Max => return None,
    };
    Some((format!("{architecture}.pooling_type"), number))
}

/// The pooling that the configuration of a module asks for.
fn pooling(path: &std::path::Path, config: &Json) -> Result<Pooling> {
    let asked = |key: &str| config[key] == true;
    let known = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let modes =
        config.as_object().into_iter().flatten().filter(|(key, on)| key.starts_with("pooling_mode_") && **on == true);
    let (found, count): (Vec<Pooling>, usize) =
        (known.into_iter().filter(|(key, _)| asked(key)).map(|(_, pooling)| pooling).collect(), modes.count());
    match (found.as_slice(), count) {
        ([one], 1) => Ok(*one),
        _ => Err(unsupported(path, "its way of pooling")),
    }
}

fn unsupported(path: &std::path::Path, what: &str) -> Error {
    let message = format!("{}: {what} is not supported", path.display());
    Error::new(Code::Refused, message).at(path).help("--pooling mean, cls, last or max overrides a pooling")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_refused_or_keeps_its_end_token() {
        let mut tokens = vec![101, 1, 2, 3, 102];
        assert!(!cut(&mut tokens, 5, false).unwrap());
        assert!(cut(&mut tokens, 4, false).unwrap_err().help.unwrap().contains("--truncate"));
        assert!(cut(&mut tokens, 4, true).unwrap());
        assert_eq!(tokens, [101, 1, 2, 102]);
        assert!(cut(&mut Vec::new(), 4, true).is_err());
    }
}

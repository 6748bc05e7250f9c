//! `generate`: a text goes on.

use std::time::Duration;

use serde::Serialize;
use windlass_generate::{FinishReason, Generation, Sampler, Sampling, Settings, TextStream};
use windlass_ops::Context;
use windlass_tensor::{Element, Limits, Value};

use crate::load::{Loaded, Run};
use crate::{Error, Model, Result};

/// What to generate, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub prompt: String,
    /// Most tokens to generate.
    pub tokens: usize,
    pub sampling: Sampling,
    /// Texts that end generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Element of the cache: F32, F16 or packed.
    pub cache: Element,
}

/// What was generated.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub text: String,
    pub tokens: usize,
    pub prompt_tokens: usize,
    pub prompt_tokens_per_second: f64,
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
    pub finish_reason: &'static str,
}

/// Generates; `show` sees the text as it comes and says whether to go on.
pub fn generate(
    cx: &Context,
    model: &Model,
    loaded: &Loaded,
    options: &Options,
    limits: &Limits,
    show: &mut dyn FnMut(&str) -> bool,
) -> Result<Report> {
    let tokenizer = model.tokenizer(limits)?;
    let prompt = tokenizer.encode(&options.prompt, true)?;
    if prompt.len() >= loaded.context {
        let message = format!("the prompt has {} tokens, the context {}", prompt.len(), loaded.context);
        return Err(Error::usage(message).help("give a larger --context, or a shorter prompt"));
    }
    let mut sampler = Sampler::new(options.sampling.clone()).map_err(|e| Error::usage(e.to_string()))?;
    let settings = Settings { tokens: options.tokens, end: end_tokens(model, limits)? };
    let context = loaded.context.min(prompt.len() + options.tokens + 1);
    let batch = prompt.len().min(windlass_generate::BATCH);
    let cache = loaded.cache(&Run { context, element: options.cache.clone(), batch, logits: 1 })?;
    let mut generation = Generation::new(&loaded.decoder, cache);
    let mut stream = TextStream::new(&tokenizer);
    let mut text = Text { text: String::new(), shown: 0, stop: &options.stop, ended: false, show };
    let outcome = generation.run(cx, &prompt, &mut sampler, &settings, &mut |token| {
        let piece = stream.push(token)?;
        Ok(text.push(&piece))
    })?;
    if !text.ended {
        text.push(&stream.finish()?);
        text.flush();
    }
    let rate =
        |tokens: usize, time: Duration| if tokens > 0 { tokens as f64 / time.as_secs_f64().max(1e-9) } else { 0.0 };
    Ok(Report {
        finish_reason: if text.ended { FinishReason::Stop.name() } else { outcome.finish.name() },
        text: text.text,
        tokens: outcome.tokens.len(),
        prompt_tokens: prompt.len(),
        prompt_tokens_per_second: rate(prompt.len(), outcome.prompt),
        tokens_per_second: rate(outcome.tokens.len().saturating_sub(1), outcome.decode),
        peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
    })
}

/// Text as it grows; what may be the beginning of a stop text is held back.
struct Text<'a> {
    text: String,
    /// Bytes that were shown.
    shown: usize,
    stop: &'a [String],
    /// Whether a stop text came.
    ended: bool,
    show: &'a mut dyn FnMut(&str) -> bool,
}

impl Text<'_> {
    fn push(&mut self, piece: &str) -> bool {
        self.text.push_str(piece);
        if let Some(at) = self.stop.iter().filter(|s| !s.is_empty()).filter_map(|s| self.text.find(s.as_str())).min() {
            self.text.truncate(at);
            self.flush();
            self.ended = true;
            return false;
        }
        let held = self.stop.iter().map(|s| overlap(&self.text, s)).max().unwrap_or(0);
        self.show_to(self.text.len() - held)
    }

    fn flush(&mut self) {
        self.show_to(self.text.len());
    }

    fn show_to(&mut self, end: usize) -> bool {
        let from = self.shown;
        self.shown = end.max(from);
        match self.text.get(from..end) {
            Some(new) if !new.is_empty() => (self.show)(new),
            _ => true,
        }
    }
}

/// Bytes at the end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let most = stop.len().saturating_sub(1).min(text.len());
    (1..=most)
        .rev()
        .find(|n| text.as_bytes().ends_with(&stop.as_bytes()[..*n]) && text.is_char_boundary(text.len() - n))
        .unwrap_or(0)
}

/// The tokens that end a text, as the model's files say.
pub fn end_tokens(model: &Model, limits: &Limits) -> Result<Vec<u32>> {
    let mut end = Vec::new();
    let files = model.side_files(limits)?;
    for name in ["generation_config.json", "config.json"] {
        let json = files.get(name).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok());
        match json.as_ref().and_then(|json| json.get("eos_token_id")) {
            Some(serde_json::Value::Array(list)) => end.extend(list.iter().filter_map(|id| id.as_u64())),
            Some(id) => end.extend(id.as_u64()),
            None => {}
        }
    }
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        end.extend(model.source.metadata().get(key).and_then(Value::as_u64));
    }
    let mut end: Vec<u32> = end.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
    end.sort_unstable();
    end.dedup();
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_stop_text_is_held_back() {
        let mut shown = String::new();
        let stop = ["END".to_string()];
        let mut show = |text: &str| {
            shown.push_str(text);
            true
        };
        let mut text = Text { text: String::new(), shown: 0, stop: &stop, ended: false, show: &mut show };
        assert!(text.push("a E"));
        assert!(text.push("ve E"));
        assert!(text.push("N"));
        assert!(!text.push("D of it"));
        assert!(text.ended);
        assert_eq!(text.text, "a Eve ");
        assert_eq!(shown, "a Eve ");
    }
}

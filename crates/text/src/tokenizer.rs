//! A running tokenizer.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl};
use windlass_tensor::{Limits, Metadata};

use crate::error::bound;
use crate::split::Steps;
use crate::{Error, gguf, json, validate};

/// Text to token ids and back.
///
/// Truncation and padding that a tokenizer.json asks for are not applied: batching decides about them.
pub struct Tokenizer {
    inner: TokenizerImpl<ModelWrapper, NormalizerWrapper, Steps, PostProcessorWrapper, DecoderWrapper>,
    size: usize,
    text_bytes: u64,
}

impl Tokenizer {
    /// Reads a tokenizer.json. Errors say which part is wrong.
    pub fn from_json(bytes: &[u8], limits: &Limits) -> Result<Tokenizer, Error> {
        Self::from_value(json::parse("tokenizer.json", bytes, limits)?, limits)
    }

    /// Reads the `tokenizer.ggml.*` keys of a GGUF.
    pub fn from_gguf(metadata: &Metadata, limits: &Limits) -> Result<Tokenizer, Error> {
        Self::from_value(gguf::read(metadata, limits)?.json, limits)
    }

    fn from_value(mut description: Value, limits: &Limits) -> Result<Tokenizer, Error> {
        let facts = validate::check(&mut description, limits)?;
        let inner = guarded("build this tokenizer", || build(description).map_err(Into::into))?;
        for (content, id) in &facts.added {
            let got = inner.token_to_id(content);
            if got != Some(*id) {
                let message = format!(
                    "{content:?} says id {id}, but its place in the vocabulary gives it {got:?}; number added tokens without gaps"
                );
                return Err(Error::invalid("tokenizer.json: added_tokens", message));
            }
        }
        Ok(Tokenizer { inner, size: facts.size, text_bytes: limits.string_bytes })
    }

    /// The ids of `text`. Special tokens written out in the text become their ids; `add_special` also adds those that the model wants
    /// around a text (begin of text and so on).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        bound(|| "the text".to_owned(), text.len(), self.text_bytes)?;
        let encoding = guarded("tokenize this text", || self.inner.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` alone, and the bytes of it that each stands for: what the model wants around a text is not added.
    pub fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), Error> {
        bound(|| "the text".to_owned(), text.len(), self.text_bytes)?;
        let encoding = guarded("tokenize this text", || self.inner.encode(text, false))?;
        let places = encoding.get_offsets().iter().map(|(start, end)| *start..*end).collect();
        Ok((encoding.get_ids().to_vec(), places))
    }

    /// The text of `tokens`, without special tokens if `skip_special`. An id outside the vocabulary is an error.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, Error> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.size) {
            return Err(Error::Token { token, size: self.size });
        }
        guarded("turn these tokens into text", || self.inner.decode(tokens, skip_special))
    }

    /// How the vocabulary writes `token`: in byte-level or `▁` spelling, where the model has one.
    pub fn piece(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The id of a piece as the vocabulary writes it, such as `<|im_end|>`.
    pub fn token(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// Whether `token` is a special token, which `decode` can leave out.
    pub fn is_special(&self, token: u32) -> bool {
        self.piece(token).is_some_and(|piece| self.inner.get_added_vocabulary().is_special_token(&piece))
    }

    /// One more than the highest id. The embedding of a model may have more rows.
    pub fn vocabulary_size(&self) -> usize {
        self.size
    }
}

type Inner = TokenizerImpl<ModelWrapper, NormalizerWrapper, Steps, PostProcessorWrapper, DecoderWrapper>;

fn build(mut description: Value) -> Result<Inner, Error> {
    let mut inner = Inner::new(model(description["model"].take())?);
    inner.with_normalizer(component::<NormalizerWrapper>(&description, "normalizer")?);
    let steps = Steps::new(&description["pre_tokenizer"])?;
    inner.with_pre_tokenizer(Some(steps));
    inner.with_post_processor(component::<PostProcessorWrapper>(&description, "post_processor")?);
    inner.with_decoder(component::<DecoderWrapper>(&description, "decoder")?);
    let added = description["added_tokens"].as_array().into_iter().flatten().map(AddedToken::deserialize);
    inner.add_tokens(&added.collect::<Result<Vec<_>, _>>().map_err(|e| refused("added_tokens", e))?);
    Ok(inner)
}

fn model(mut model: Value) -> Result<ModelWrapper, Error> {
    // The models' own deserializers take the rest of the object; its type is decided here, once.
    let kind = model.as_object_mut().and_then(|map| map.remove("type")).unwrap_or_default();
    let error = |e| refused("model", e);
    Ok(match kind.as_str() {
        Some("BPE") => serde_json::from_value::<BPE>(model).map_err(error)?.into(),
        Some("Unigram") => serde_json::from_value::<Unigram>(model).map_err(error)?.into(),
        Some("WordPiece") => serde_json::from_value::<WordPiece>(model).map_err(error)?.into(),
        _ => serde_json::from_value::<WordLevel>(model).map_err(error)?.into(),
    })
}

fn component<'a, T: Deserialize<'a>>(description: &'a Value, key: &str) -> Result<Option<T>, Error> {
    Option::<T>::deserialize(&description[key]).map_err(|e| refused(key, e))
}

fn refused(place: &str, error: serde_json::Error) -> Error {
    Error::invalid(format!("tokenizer.json: {place}"), error.to_string())
}

/// Calls the library; a panic inside it is an error like any other.
fn guarded<T>(doing: &'static str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
    let failed = |message: String| Error::Library { doing, message };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => match error.downcast::<Error>() {
            Ok(own) => Err(*own),
            Err(other) => Err(failed(other.to_string())),
        },
        Err(panic) => {
            let said =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(failed(format!("the tokenizers library stopped: {}", said.unwrap_or("no reason given"))))
        }
    }
}

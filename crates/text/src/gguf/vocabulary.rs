//! The vocabulary of a GGUF, checked.

use std::collections::HashSet;

use windlass_tensor::{Array, Limits, Metadata, Strings, Value};

use super::{SPECIAL, byte_of, key, pre};
use crate::Error;
use crate::error::bound;
use crate::validate::TOKEN_BYTES;

/// The value of `tokenizer.ggml.model`, where it is one that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// `gpt2`: byte-level BPE.
    Bytes,
    /// `llama`: sentencepiece BPE, whose merges follow from scores.
    Scores,
    /// `gemma4`: BPE in sentencepiece spelling, with merges.
    Merges,
    /// `t5`: unigram.
    Unigram,
    /// `bert`: WordPiece.
    WordPiece,
}

/// What a token is for; the numbers are GGUF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A checked vocabulary: as many types and scores as tokens, all tokens different, all special ids inside.
pub(crate) struct Vocabulary<'a> {
    pub model: Model,
    /// The pre-tokenizer; byte-level BPE only.
    pub pre: Option<&'static pre::Pre>,
    /// Spelled as in the file, except that an empty token has a name.
    pub tokens: Vec<String>,
    pub types: Vec<Type>,
    pub scores: Option<Vec<f32>>,
    pub merges: Option<&'a Strings>,
    /// Ids in the order of `SPECIAL`.
    pub special: [Option<u32>; SPECIAL.len()],
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_sep: bool,
    pub add_space_prefix: bool,
}

impl<'a> Vocabulary<'a> {
    /// Reads and checks the keys.
    pub(crate) fn new(metadata: &'a Metadata, limits: &Limits) -> Result<Self, Error> {
        let model = model(metadata)?;
        let pre = if model == Model::Bytes { Some(pre_tokenizer(metadata)?) } else { None };
        let tokens = tokens(metadata, model, limits)?;
        let types = types(metadata, tokens.len())?;
        check_bytes(&tokens, &types)?;
        let flag = |key, default| flag(metadata, key).map(|set| set.unwrap_or(default));
        let (add_bos, add_eos, prefix) = match model {
            Model::Bytes => (pre.is_some_and(|p| p.add_bos), false, false),
            Model::Scores => (true, false, true),
            Model::Merges => (true, false, false),
            Model::Unigram => (false, true, true),
            Model::WordPiece => (true, false, false),
        };
        let vocabulary = Vocabulary {
            model,
            pre,
            scores: scores(metadata, model, tokens.len())?,
            merges: strings(metadata, key::MERGES)?,
            special: special(metadata, model, tokens.len())?,
            add_bos: flag(key::ADD_BOS, add_bos)?,
            add_eos: flag(key::ADD_EOS, add_eos)?,
            add_sep: flag(key::ADD_SEP, model == Model::WordPiece)?,
            add_space_prefix: flag(key::ADD_SPACE_PREFIX, prefix)?,
            tokens,
            types,
        };
        for (name, wanted) in [("bos", vocabulary.add_bos), ("eos", vocabulary.add_eos)] {
            if wanted && vocabulary.id(name).is_none() && model != Model::WordPiece {
                let message = format!(
                    "it is to be added to every text, but no tokenizer.ggml.{name}_token_id says which token it is"
                );
                return Err(Error::invalid(format!("tokenizer.ggml.add_{name}_token"), message));
            }
        }
        Ok(vocabulary)
    }

    /// The id of a special token by its Hugging Face name.
    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        SPECIAL.iter().position(|(n, _)| *n == name).and_then(|at| self.special[at])
    }

    /// Whether token `i` only fills up a row of the embedding: `[PAD7]` and the like, numbered from the start or from the first of them.
    pub(crate) fn is_filler(&self, i: usize) -> bool {
        let number = self.tokens[i]
            .trim_start_matches(super::SPACE)
            .strip_prefix("[PAD")
            .and_then(|rest| rest.strip_suffix(']'));
        self.types[i] == Type::Unused && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }
}

fn model(metadata: &Metadata) -> Result<Model, Error> {
    let value = metadata.get(key::MODEL).ok_or_else(|| Error::Missing(key::MODEL.to_owned()))?;
    match value.as_str() {
        Some("gpt2") => Ok(Model::Bytes),
        Some("llama") => Ok(Model::Scores),
        Some("gemma4") => Ok(Model::Merges),
        Some("t5") => Ok(Model::Unigram),
        Some("bert") => Ok(Model::WordPiece),
        _ => Err(Error::unsupported(
            key::MODEL,
            format!("{value} is not supported; gpt2, llama, gemma4, t5 and bert are"),
        )),
    }
}

fn pre_tokenizer(metadata: &Metadata) -> Result<&'static pre::Pre, Error> {
    let name = match metadata.get(key::PRE) {
        None => "default",
        Some(value) => value.as_str().ok_or_else(|| Error::invalid(key::PRE, "expected a string"))?,
    };
    pre::by_name(name).ok_or_else(|| {
        let message = format!(
            "no pre-tokenizer is known as {name:?}; give the folder of the original model with its tokenizer.json"
        );
        Error::unsupported(key::PRE, message)
    })
}

fn strings<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a Strings>, Error> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let list = value.as_array().and_then(Array::as_strings);
    list.map(Some).ok_or_else(|| Error::invalid(key, "expected an array of strings"))
}

fn tokens(metadata: &Metadata, model: Model, limits: &Limits) -> Result<Vec<String>, Error> {
    let list = strings(metadata, key::TOKENS)?.ok_or_else(|| Error::Missing(key::TOKENS.to_owned()))?;
    bound(|| key::TOKENS.to_owned(), list.len(), limits.array_items.min(u64::from(u32::MAX)))?;
    let mut seen = HashSet::with_capacity(list.len());
    let mut tokens = Vec::with_capacity(list.len());
    for (i, token) in list.iter().enumerate() {
        bound(|| format!("{}[{i}]", key::TOKENS), token.len(), TOKEN_BYTES)?;
        if !seen.insert(token) {
            return Err(Error::invalid(format!("{}[{i}]", key::TOKENS), format!("{token:?} is there already")));
        }
        // WordPiece has a use for the empty token: it is written "##".
        let named = token.is_empty() && model != Model::WordPiece;
        tokens.push(if named { format!("[EMPTY_{i}]") } else { token.to_string() });
    }
    if tokens.is_empty() { Err(Error::invalid(key::TOKENS, "the vocabulary is empty")) } else { Ok(tokens) }
}

fn types(metadata: &Metadata, count: usize) -> Result<Vec<Type>, Error> {
    let Some(value) = metadata.get(key::TYPES) else { return Ok(vec![Type::Normal; count]) };
    let list = numbers(value, key::TYPES, count)?;
    Ok(list
        .map(|kind| match kind as i64 {
            2 => Type::Unknown,
            3 => Type::Control,
            4 => Type::UserDefined,
            5 => Type::Unused,
            6 => Type::Byte,
            _ => Type::Normal,
        })
        .collect())
}

fn scores(metadata: &Metadata, model: Model, count: usize) -> Result<Option<Vec<f32>>, Error> {
    let Some(value) = metadata.get(key::SCORES) else {
        let needed = model == Model::Unigram || (model == Model::Scores && metadata.get(key::MERGES).is_none());
        return if needed { Err(Error::Missing(key::SCORES.to_owned())) } else { Ok(None) };
    };
    let scores: Vec<f32> = numbers(value, key::SCORES, count)?.map(|v| v as f32).collect();
    match scores.iter().position(|s| !s.is_finite()) {
        Some(i) => Err(Error::invalid(format!("{}[{i}]", key::SCORES), format!("{} is not finite", scores[i]))),
        None => Ok(Some(scores)),
    }
}

fn numbers<'a>(value: &'a Value, key: &str, count: usize) -> Result<impl Iterator<Item = f64> + use<'a>, Error> {
    let list = match value.as_array() {
        Some(list @ (Array::F32(_) | Array::F64(_) | Array::I32(_) | Array::U32(_) | Array::I64(_))) => list,
        _ => return Err(Error::invalid(key, "expected an array of numbers")),
    };
    if list.len() != count {
        return Err(Error::invalid(key, format!("expected one item per token, {count}, found {}", list.len())));
    }
    Ok((0..count).map(|i| list.get(i).and_then(|v| v.as_f64()).unwrap_or(f64::NAN)))
}

fn flag(metadata: &Metadata, key: &str) -> Result<Option<bool>, Error> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| Error::invalid(key, format!("expected true or false, found {value}")))
}

fn special(metadata: &Metadata, model: Model, count: usize) -> Result<[Option<u32>; SPECIAL.len()], Error> {
    // What llama.cpp assumes where a key is missing; the other models have no such custom.
    let defaults: &[(&str, u32)] = match model {
        Model::Scores => &[("bos", 1), ("eos", 2), ("unk", 0)],
        Model::Unigram => &[("eos", 1), ("unk", 2), ("pad", 0)],
        Model::WordPiece => &[("bos", 101), ("unk", 100), ("sep", 102), ("pad", 0), ("mask", 103)],
        Model::Bytes | Model::Merges => &[],
    };
    let mut ids = [None; SPECIAL.len()];
    for ((name, key), slot) in SPECIAL.iter().zip(&mut ids) {
        *slot = match metadata.get(key) {
            Some(value) => {
                let id = value.as_u64().filter(|id| *id < count as u64);
                let message = || format!("{value} is not the id of a token; there are {count}");
                Some(id.ok_or_else(|| Error::invalid(*key, message()))? as u32)
            }
            None => defaults.iter().find(|(n, id)| n == name && (*id as usize) < count).map(|(_, id)| *id),
        };
    }
    Ok(ids)
}

fn check_bytes(tokens: &[String], types: &[Type]) -> Result<(), Error> {
    for (i, (token, kind)) in tokens.iter().zip(types).enumerate() {
        let place = || format!("{}[{i}]", key::TOKENS);
        if *kind == Type::Byte && byte_of(token).is_none() {
            return Err(Error::invalid(place(), format!("{token:?} stands for a byte and should look like <0x0A>")));
        }
    }
    Ok(())
}

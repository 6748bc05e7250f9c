//! What is checked in a tokenizer.json before the library sees it.
//!
//! The library trusts its input: it indexes, unwraps and multiplies. These checks bound what a file can make it do.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use windlass_tensor::Limits;

use crate::Error;
use crate::error::bound;
use crate::json::{kind, sequence, text};
use crate::split::compile;

/// Bytes of one token.
pub(crate) const TOKEN_BYTES: u64 = 16 << 10;
/// Bytes of all added tokens: the library builds search automata over them.
const ADDED_BYTES: u64 = 16 << 20;
/// Characters of a word that WordPiece may search pieces in; its work is the square of this.
const WORD_CHARACTERS: u64 = 1_000;
/// Components of one normalizer, pre-tokenizer, post-processor or decoder.
const COMPONENTS: u64 = 64;
/// How many times longer normalizing or decoding may make a text.
const GROWTH: u64 = 4_096;
/// Bytes of one fixed text inside a component.
const LITERAL_BYTES: u64 = 1_024;

/// What was learned while checking.
pub(crate) struct Facts {
    /// One more than the highest id.
    pub size: usize,
    /// Contents and ids of added tokens.
    pub added: Vec<(String, u32)>,
}

/// Checks a tokenizer.json and brings its older spellings (merges as strings, a model without type) to the present one.
pub(crate) fn check(tokenizer: &mut Value, limits: &Limits) -> Result<Facts, Error> {
    if !tokenizer.is_object() {
        return Err(Error::invalid("tokenizer.json", format!("expected an object, found {}", kind(tokenizer))));
    }
    let of_model = model(&mut tokenizer["model"], limits)?;
    let added = added_tokens(&tokenizer["added_tokens"], limits)?;
    let of_added = added.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
    let size = of_model.max(of_added);
    growth(&tokenizer["normalizer"], "normalizers", "normalizer")?;
    growth(&tokenizer["decoder"], "decoders", "decoder")?;
    pre_tokenizer(&tokenizer["pre_tokenizer"])?;
    post_processor(&tokenizer["post_processor"], size)?;
    Ok(Facts { size, added })
}

fn model(model: &mut Value, limits: &Limits) -> Result<usize, Error> {
    let place = "tokenizer.json: model";
    let Value::Object(fields) = model else {
        return Err(Error::invalid(place, format!("expected an object, found {}", kind(model))));
    };
    if !fields.contains_key("type") {
        let guess = match (fields.contains_key("merges"), fields.get("vocab").is_some_and(Value::is_array)) {
            (true, _) => "BPE",
            (_, true) => "Unigram",
            _ => "WordPiece",
        };
        fields.insert("type".to_owned(), json!(guess));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        let bytes = fields.get(key).and_then(Value::as_str).map_or(0, str::len);
        bound(|| format!("{place}.{key}"), bytes, LITERAL_BYTES)?;
    }
    match text(model, "type", place)?.to_owned().as_str() {
        "BPE" => {
            if !matches!(model["dropout"].as_f64(), None | Some(0.0)) {
                return Err(Error::unsupported(
                    format!("{place}.dropout"),
                    "random tokenization is not supported; set it to null",
                ));
            }
            let vocabulary = vocabulary_map(model, limits)?;
            unknown_token(model)?;
            merges(model, limits)?;
            Ok(vocabulary)
        }
        "Unigram" => unigram(model, limits),
        "WordPiece" => {
            let longest = model["max_input_chars_per_word"].as_u64().unwrap_or(100);
            bound(
                || format!("{place}.max_input_chars_per_word"),
                longest.try_into().unwrap_or(usize::MAX),
                WORD_CHARACTERS,
            )?;
            unknown_token(model)?;
            vocabulary_map(model, limits)
        }
        "WordLevel" => {
            unknown_token(model)?;
            vocabulary_map(model, limits)
        }
        other => Err(Error::unsupported(
            place,
            format!("type {other:?} is not known; BPE, Unigram, WordPiece and WordLevel are"),
        )),
    }
}

fn id(value: &Value, place: impl Fn() -> String, limits: &Limits) -> Result<u32, Error> {
    match value.as_u64() {
        Some(id) if id < limits.array_items && id < u64::from(u32::MAX) => Ok(id as u32),
        Some(id) => Err(Error::Limit { place: place(), found: id, limit: limits.array_items }),
        None => Err(Error::invalid(place(), format!("expected a token id, found {value}"))),
    }
}

fn vocabulary_map(model: &Value, limits: &Limits) -> Result<usize, Error> {
    let place = "tokenizer.json: model.vocab";
    let map = model["vocab"]
        .as_object()
        .ok_or_else(|| Error::invalid(place, format!("expected an object, found {}", kind(&model["vocab"]))))?;
    bound(|| place.to_owned(), map.len(), limits.array_items)?;
    let mut seen = HashSet::with_capacity(map.len());
    let mut size = 0;
    for (token, value) in map {
        bound(|| format!("{place}: one token"), token.len(), TOKEN_BYTES)?;
        let id = id(value, || format!("{place}.{token:?}"), limits)?;
        if !seen.insert(id) {
            return Err(Error::invalid(place, format!("two tokens have id {id}; one of them is {token:?}")));
        }
        size = size.max(id as usize + 1);
    }
    Ok(size)
}

fn unknown_token(model: &Value) -> Result<(), Error> {
    match model["unk_token"].as_str() {
        Some(token) if model["vocab"].get(token).is_none() => {
            Err(Error::invalid("tokenizer.json: model.unk_token", format!("{token:?} is not in the vocabulary")))
        }
        _ => Ok(()),
    }
}

/// Brings merges to pairs and checks that both halves and their union are tokens.
fn merges(model: &mut Value, limits: &Limits) -> Result<(), Error> {
    let place = "tokenizer.json: model.merges";
    let Value::Array(list) = model["merges"].take() else {
        return Err(Error::invalid(place, "expected an array"));
    };
    bound(|| place.to_owned(), list.len(), limits.array_items)?;
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("").len();
    let vocabulary = model["vocab"].as_object().ok_or_else(|| Error::invalid(place, "there is no vocabulary"))?;
    let known = |left: &str, right: &str| {
        let union = right.get(prefix..).map(|rest| format!("{left}{rest}"));
        vocabulary.contains_key(left)
            && vocabulary.contains_key(right)
            && union.is_some_and(|u| vocabulary.contains_key(&u))
    };
    let mut pairs = Vec::with_capacity(list.len());
    for (rank, merge) in list.into_iter().enumerate() {
        let bad = |merge: &Value| {
            Error::invalid(
                format!("{place}[{rank}]"),
                format!("{merge} does not join two tokens of the vocabulary to a third"),
            )
        };
        pairs.push(match merge {
            Value::String(joined) => {
                if joined.starts_with("#version") {
                    continue;
                }
                let pair = split_merge(&joined, known).ok_or_else(|| bad(&json!(joined)))?;
                json!([pair.0, pair.1])
            }
            Value::Array(_) => match (merge[0].as_str(), merge[1].as_str()) {
                (Some(left), Some(right)) if merge.get(2).is_none() && known(left, right) => merge,
                _ => return Err(bad(&merge)),
            },
            other => return Err(bad(&other)),
        });
    }
    model["merges"] = Value::Array(pairs);
    Ok(())
}

/// Cuts `"left right"` at the space that leaves two known halves: tokens may contain spaces themselves.
pub(crate) fn split_merge(joined: &str, known: impl Fn(&str, &str) -> bool) -> Option<(&str, &str)> {
    joined.match_indices(' ').map(|(at, _)| (&joined[..at], &joined[at + 1..])).find(|(left, right)| known(left, right))
}

fn unigram(model: &Value, limits: &Limits) -> Result<usize, Error> {
    let place = "tokenizer.json: model.vocab";
    let list = model["vocab"]
        .as_array()
        .ok_or_else(|| Error::invalid(place, format!("expected an array, found {}", kind(&model["vocab"]))))?;
    bound(|| place.to_owned(), list.len(), limits.array_items)?;
    let mut seen = HashSet::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        let (Some(token), Some(_)) = (item[0].as_str(), item[1].as_f64().filter(|s| s.is_finite())) else {
            return Err(Error::invalid(
                format!("{place}[{i}]"),
                format!("expected a token and its finite score, found {item}"),
            ));
        };
        bound(|| format!("{place}[{i}]"), token.len(), TOKEN_BYTES)?;
        if token.is_empty() || !seen.insert(token) {
            return Err(Error::invalid(format!("{place}[{i}]"), format!("{token:?} is empty or there already")));
        }
    }
    match model["unk_id"].as_u64() {
        Some(id) if id as usize >= list.len() => {
            Err(Error::invalid("tokenizer.json: model.unk_id", format!("{id} is not below {}", list.len())))
        }
        _ => Ok(list.len()),
    }
}

fn added_tokens(list: &Value, limits: &Limits) -> Result<Vec<(String, u32)>, Error> {
    let place = "tokenizer.json: added_tokens";
    let empty = Vec::new();
    let list = match list {
        Value::Null => &empty,
        Value::Array(list) => list,
        other => return Err(Error::invalid(place, format!("expected an array, found {}", kind(other)))),
    };
    bound(|| place.to_owned(), list.len(), limits.array_items)?;
    let (mut added, mut ids, mut contents) = (Vec::with_capacity(list.len()), HashSet::new(), HashSet::new());
    let mut bytes = 0;
    for (i, token) in list.iter().enumerate() {
        let place = || format!("{place}[{i}]");
        let content = text(token, "content", &place())?;
        bound(place, content.len(), TOKEN_BYTES)?;
        bytes += content.len();
        let id = id(&token["id"], || format!("{}.id", place()), limits)?;
        if content.is_empty() || !ids.insert(id) || !contents.insert(content) {
            return Err(Error::invalid(
                place(),
                format!("{content:?} with id {id} is empty, or its text or id is there already"),
            ));
        }
        added.push((content.to_owned(), id));
    }
    bound(|| place.to_owned(), bytes, ADDED_BYTES)?;
    Ok(added)
}

fn components<'a>(component: &'a Value, key: &str, place: &str) -> Result<Vec<&'a Value>, Error> {
    let list = sequence(component, key);
    bound(|| format!("tokenizer.json: {place}"), list.len(), COMPONENTS)?;
    Ok(list)
}

/// Bounds how much longer a normalizer or decoder can make a text, in the worst case.
fn growth(component: &Value, key: &str, name: &'static str) -> Result<(), Error> {
    let mut total: u64 = 1;
    for part in components(component, key, name)? {
        let place = format!("tokenizer.json: {name}");
        total = total.saturating_mul(match text(part, "type", &place)? {
            "Replace" => replacement_growth(part, &place)?,
            "Prepend" => literal(part, "prepend", &place)?.len() as u64 + 1,
            "Precompiled" => character_map_growth(part, &place)?,
            "NFKC" | "NFKD" | "Nmt" => 18,
            "NFC" | "NFD" | "Lowercase" | "BertNormalizer" | "Metaspace" | "BPEDecoder" | "WordPiece" | "CTC" => 3,
            _ => 1,
        });
        bound(|| format!("{place}: growth of the text"), total as usize, GROWTH)?;
    }
    Ok(())
}

fn literal<'a>(part: &'a Value, key: &str, place: &str) -> Result<&'a str, Error> {
    let literal = text(part, key, place)?;
    bound(|| format!("{place}.{key}"), literal.len(), LITERAL_BYTES)?;
    Ok(literal)
}

fn replacement_growth(part: &Value, place: &str) -> Result<u64, Error> {
    let content = literal(part, "content", place)?.len() as u64;
    let pattern = &part["pattern"];
    if let Some(regex) = pattern["Regex"].as_str() {
        // The library runs this one itself, so it has to be of the kind that cannot backtrack.
        let compiled = compile(regex, &format!("{place}.pattern.Regex"))?;
        if is_backtracking(regex) {
            return Err(Error::unsupported(
                format!("{place}.pattern.Regex"),
                "look-around and back-references are not supported in replacements",
            ));
        }
        return Ok(1 + content * u64::from(compiled.is_match("").unwrap_or(true)) + content);
    }
    let pattern = literal(pattern, "String", place)?.len() as u64;
    Ok(content.div_ceil(pattern.max(1)).max(1) + u64::from(pattern == 0))
}

/// Whether an expression has what the linear-time engine lacks. May err on the side of yes.
fn is_backtracking(regex: &str) -> bool {
    let bytes = regex.as_bytes();
    ["(?=", "(?!", "(?<=", "(?<!", "(?>", "(?(", "(?P="].iter().any(|s| regex.contains(s))
        || bytes.windows(2).any(|w| w[0] == b'\\' && (w[1].is_ascii_digit() || b"kGKXRZh".contains(&w[1])))
        || bytes.windows(2).any(|w| b"*+?}".contains(&w[0]) && w[1] == b'+')
}

/// The longest replacement in a sentencepiece character map: `u32` size of a trie, the trie, then texts that end in NUL.
fn character_map_growth(part: &Value, place: &str) -> Result<u64, Error> {
    let place = format!("{place}.precompiled_charsmap");
    let encoded = part["precompiled_charsmap"].as_str().unwrap_or("");
    let blob = base64::decode(encoded).map_err(|e| Error::invalid(&place, format!("not base64: {e}")))?;
    let texts =
        character_map_texts(&blob).ok_or_else(|| Error::invalid(&place, "its trie is larger than the whole map"))?;
    Ok(texts.split(|b| *b == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as u64)
}

/// The texts of a character map, if its trie fits in it.
pub(crate) fn character_map_texts(blob: &[u8]) -> Option<&[u8]> {
    let (size, rest) = blob.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*size) as usize;
    if size.is_multiple_of(4) && size >= 4 { rest.get(size..).filter(|texts| texts.last() == Some(&0)) } else { None }
}

fn pre_tokenizer(component: &Value) -> Result<(), Error> {
    for part in components(component, "pretokenizers", "pre_tokenizer")? {
        let pattern = &part["pattern"];
        for key in ["String", "Regex"] {
            let bytes = pattern[key].as_str().map_or(0, str::len);
            bound(|| format!("tokenizer.json: pre_tokenizer.pattern.{key}"), bytes, 16 * LITERAL_BYTES)?;
        }
        if part["type"] == "FixedLength" && part["length"].as_u64() == Some(0) {
            return Err(Error::invalid("tokenizer.json: pre_tokenizer.length", "pieces of length 0 would never end"));
        }
    }
    Ok(())
}

fn post_processor(component: &Value, size: usize) -> Result<(), Error> {
    let place = "tokenizer.json: post_processor";
    let check = |id: &Value| match id.as_u64() {
        Some(id) if (id as usize) < size => Ok(()),
        _ => Err(Error::invalid(place, format!("token id {id} is not in the vocabulary of {size} tokens"))),
    };
    for part in components(component, "processors", "post_processor")? {
        for key in ["single", "pair"] {
            bound(|| format!("{place}.{key}"), part[key].as_array().map_or(0, Vec::len), COMPONENTS)?;
        }
        for key in ["cls", "sep"].iter().filter(|key| part.get(**key).is_some()) {
            check(&part[key][1])?;
        }
        let none = Map::new();
        let specials = part["special_tokens"].as_object().unwrap_or(&none);
        bound(|| format!("{place}.special_tokens"), specials.len(), COMPONENTS)?;
        let pieces = ["single", "pair"].iter().filter_map(|key| part[*key].as_array()).flatten();
        let named = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
        if let Some(unknown) = named.into_iter().find(|name| !specials.contains_key(*name)) {
            return Err(Error::invalid(place, format!("{unknown:?} is not one of its special_tokens")));
        }
        for token in specials.values() {
            let ids = token["ids"].as_array().map_or(&[][..], Vec::as_slice);
            bound(|| format!("{place}.special_tokens.ids"), ids.len(), COMPONENTS)?;
            ids.iter().try_for_each(check)?;
        }
    }
    Ok(())
}

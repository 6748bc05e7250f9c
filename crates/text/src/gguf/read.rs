//! From the keys of a GGUF to the tokenizer.json that they stand for.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use windlass_tensor::{Array, Limits, Metadata};

use super::vocabulary::{Model, Type, Vocabulary};
use super::{SPACE, key, merges};
use crate::Error;
use crate::error::bound;

/// A tokenizer as read from a GGUF.
pub(crate) struct Read<'a> {
    /// As a tokenizer.json.
    pub json: Value,
    /// The checked keys.
    pub vocabulary: Vocabulary<'a>,
}

/// Reads the `tokenizer.ggml.*` keys.
pub(crate) fn read<'a>(metadata: &'a Metadata, limits: &Limits) -> Result<Read<'a>, Error> {
    let vocabulary = Vocabulary::new(metadata, limits)?;
    let pieces = pieces(&vocabulary)?;
    let (normalizer, pre_tokenizer, decoder, model) = match vocabulary.model {
        Model::Bytes => byte_level(&vocabulary, &pieces)?,
        Model::Scores | Model::Merges => sentencepiece(&vocabulary, &pieces)?,
        Model::Unigram => unigram(metadata, &vocabulary, &pieces)?,
        Model::WordPiece => word_piece(metadata, &vocabulary, &pieces),
    };
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocabulary, &pieces),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(&vocabulary, &pieces),
        "decoder": decoder,
        "model": model,
    });
    Ok(Read { json, vocabulary })
}

/// Normalizer, pre-tokenizer, decoder and model.
type Parts = (Value, Value, Value, Value);

/// Tokens as a tokenizer.json spells them; rows that only fill the embedding are `None`.
fn pieces(vocabulary: &Vocabulary) -> Result<Vec<Option<String>>, Error> {
    let word_piece = |token: &str, kind: Type| match token.strip_prefix(SPACE) {
        _ if kind == Type::Control => token.to_owned(),
        Some(start) => start.to_owned(),
        None => format!("##{token}"),
    };
    // Where no space is put before a text, user-defined runs of spaces are found after spaces were marked.
    let marked = matches!(vocabulary.model, Model::Scores | Model::Merges) && !vocabulary.add_space_prefix;
    let pieces: Vec<_> = (vocabulary.tokens.iter().zip(&vocabulary.types).enumerate())
        .map(|(i, (token, kind))| match vocabulary.model {
            _ if vocabulary.is_filler(i) => None,
            Model::WordPiece => Some(word_piece(token, *kind)),
            _ if marked && *kind == Type::UserDefined => Some(token.replace(' ', SPACE)),
            _ => Some(token.clone()),
        })
        .collect();
    let mut seen = HashSet::with_capacity(pieces.len());
    match pieces.iter().flatten().find(|piece| !seen.insert(piece.as_str())) {
        Some(twice) => Err(Error::invalid(key::TOKENS, format!("two tokens stand for {twice:?}"))),
        None => Ok(pieces),
    }
}

fn is_added(kind: Type) -> bool {
    matches!(kind, Type::Control | Type::UserDefined | Type::Unknown)
}

fn added_tokens(vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Value {
    let token = |(id, piece): (usize, &Option<String>)| {
        let kind = vocabulary.types[id];
        let content = piece.as_ref().filter(|piece| is_added(kind) && !piece.is_empty())?;
        let special = kind != Type::UserDefined;
        // A run of spaces is looked for in the normalized text, where it is spelled like this; other tokens in the text as given.
        let normalized =
            !special && content.contains(SPACE) && !vocabulary.add_space_prefix && vocabulary.model != Model::Bytes;
        Some(
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": special}),
        )
    };
    pieces.iter().enumerate().filter_map(token).collect()
}

fn vocabulary_map(pieces: &[Option<String>]) -> Value {
    let map: Map<String, Value> =
        pieces.iter().enumerate().filter_map(|(id, p)| Some((p.clone()?, json!(id)))).collect();
    Value::Object(map)
}

fn bpe(vocabulary: &Vocabulary, pieces: &[Option<String>], merges: Value, own: Value) -> Value {
    let unknown =
        vocabulary.id("unk").filter(|_| vocabulary.model != Model::Bytes).and_then(|id| pieces[id as usize].as_deref());
    let mut model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    });
    if let (Some(model), Value::Object(own)) = (model.as_object_mut(), own) {
        model.extend(own);
        model.insert("vocab".to_owned(), vocabulary_map(pieces));
        model.insert("merges".to_owned(), merges);
    }
    model
}

fn byte_level(vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Result<Parts, Error> {
    let (Some(pre), Some(merges)) = (vocabulary.pre, vocabulary.merges) else {
        return Err(Error::Missing(key::MERGES.to_owned()));
    };
    let model =
        bpe(vocabulary, pieces, json!(merges.iter().collect::<Vec<_>>()), json!({"ignore_merges": pre.ignore_merges}));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    Ok((pre.normalizer(), pre.pre_tokenizer(vocabulary.add_space_prefix), decoder, model))
}

/// Pieces by id, with an empty one for fillers.
fn spelled(pieces: &[Option<String>]) -> Vec<String> {
    pieces.iter().map(|piece| piece.clone().unwrap_or_default()).collect()
}

fn sentencepiece(vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Result<Parts, Error> {
    let merges = match (vocabulary.merges, &vocabulary.scores) {
        (Some(merges), _) => json!(merges.iter().collect::<Vec<_>>()),
        (None, Some(scores)) => json!(merges::from_scores(&spelled(pieces), &vocabulary.types, scores)?),
        (None, None) => return Err(Error::Missing(key::MERGES.to_owned())),
    };
    let bytes = vocabulary.types.contains(&Type::Byte) || vocabulary.tokens.iter().any(|t| t == "<0x00>");
    let model = bpe(vocabulary, pieces, merges, json!({"fuse_unk": true, "byte_fallback": bytes}));
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let normalizer = if vocabulary.add_space_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]})
    } else {
        spaces
    };
    Ok((normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders}), model))
}

fn unigram(metadata: &Metadata, vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Result<Parts, Error> {
    let scores = vocabulary.scores.as_ref().ok_or_else(|| Error::Missing(key::SCORES.to_owned()))?;
    // Unigram ids are places in a list, so fillers can go only from its end.
    let used = pieces.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    let list: Vec<_> = (0..used).map(|i| json!([vocabulary.tokens[i], scores[i]])).collect();
    let unknown = vocabulary.id("unk").filter(|id| (*id as usize) < used);
    let bytes = vocabulary.types.contains(&Type::Byte);
    let model = json!({"type": "Unigram", "unk_id": unknown, "vocab": list, "byte_fallback": bytes});
    let scheme = if vocabulary.add_space_prefix { "always" } else { "never" };
    let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": true});
    let squeeze = metadata.get(key::REMOVE_EXTRA_WHITESPACES).and_then(|v| v.as_bool()).unwrap_or(false);
    let pre_tokenizer = if squeeze {
        json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]})
    } else {
        metaspace.clone()
    };
    Ok((character_map(metadata)?, pre_tokenizer, metaspace, model))
}

fn character_map(metadata: &Metadata) -> Result<Value, Error> {
    let place = key::CHARACTER_MAP;
    let blob: Vec<u8> = match metadata.get(place).map(|v| v.as_array()) {
        None => return Ok(Value::Null),
        Some(Some(Array::U8(bytes))) => bytes.clone(),
        Some(Some(Array::I8(bytes))) => bytes.iter().map(|b| *b as u8).collect(),
        _ => return Err(Error::invalid(place, "expected an array of bytes")),
    };
    bound(|| place.to_owned(), blob.len(), 64 << 20)?;
    Ok(json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(blob)}))
}

fn word_piece(metadata: &Metadata, vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Parts {
    let flag = |key| metadata.get(key).and_then(|v| v.as_bool());
    let lowercase = flag(key::LOWERCASE).unwrap_or(true);
    let normalizer = json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": flag(key::STRIP_ACCENTS), "lowercase": lowercase,
    });
    let unknown = vocabulary.id("unk").and_then(|id| pieces[id as usize].clone()).unwrap_or_else(|| "[UNK]".to_owned());
    let model = json!({
        "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": vocabulary_map(pieces),
    });
    (
        normalizer,
        json!({"type": "BertPreTokenizer"}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model,
    )
}

/// What stands around a text: begin and end of text as the flags say.
fn post_processor(vocabulary: &Vocabulary, pieces: &[Option<String>]) -> Value {
    let named = |names: &[&str]| {
        let id = names.iter().find_map(|name| vocabulary.id(name))?;
        pieces[id as usize].as_ref().map(|piece| (id, piece))
    };
    let word_piece = vocabulary.model == Model::WordPiece;
    let first = if word_piece { named(&["cls", "bos"]) } else { named(&["bos"]) }.filter(|_| vocabulary.add_bos);
    let last = if word_piece { named(&["sep", "eos"]) } else { named(&["eos"]) }
        .filter(|_| vocabulary.add_eos || (word_piece && vocabulary.add_sep));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    if first.is_none() && last.is_none() {
        return if vocabulary.model == Model::Bytes { bytes } else { Value::Null };
    }
    let around = |sequence: &str, type_id: u8, first: Option<(u32, &String)>| {
        let special = |(_, piece): (u32, &String)| json!({"SpecialToken": {"id": piece, "type_id": type_id}});
        let text = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        first.map(special).into_iter().chain([text]).chain(last.map(special)).collect::<Vec<_>>()
    };
    let single = around("A", 0, first);
    let pair: Vec<_> = single.iter().cloned().chain(around("B", 1, first.filter(|_| !word_piece))).collect();
    let specials: Map<String, Value> = first
        .into_iter()
        .chain(last)
        .map(|(id, piece)| (piece.clone(), json!({"id": piece, "ids": [id], "tokens": [piece]})))
        .collect();
    let template = json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials});
    if vocabulary.model == Model::Bytes {
        json!({"type": "Sequence", "processors": [bytes, template]})
    } else {
        template
    }
}

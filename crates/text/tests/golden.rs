//! Every kind of tokenizer against the ids that the `tokenizers` library and sentencepiece gave (see golden/make.py).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use windlass_tensor::{Array, Limits, Metadata, Value};
use windlass_text::{HfFiles, Tokenizer, to_gguf, to_hf};

const KINDS: [&str; 7] = ["qwen2", "llama3", "gpt2", "llama2", "gemma", "unigram", "bert"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn json(name: &str) -> Json {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

fn files(kind: &str) -> HfFiles {
    HfFiles {
        tokenizer_json: fs::read(golden(&format!("{kind}.json"))).unwrap(),
        tokenizer_config_json: Some(fs::read(golden(&format!("{kind}.config.json"))).unwrap()),
        ..HfFiles::default()
    }
}

fn ids(list: &Json) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Compares every string, without and with special tokens, and the text that comes back.
fn check(tokenizer: &Tokenizer, kind: &str, way: &str) {
    let golden = json(&format!("{kind}.golden.json"));
    let special = golden["special"].as_str().unwrap();
    for (i, string) in json("strings.json").as_array().unwrap().iter().enumerate() {
        let text = string.as_str().unwrap().replace("{special}", special);
        let plain = ids(&golden["plain"][i]);
        assert_eq!(tokenizer.encode(&text, false).unwrap(), plain, "{kind} {way}: {text:?}");
        assert_eq!(
            tokenizer.encode(&text, true).unwrap(),
            ids(&golden["full"][i]),
            "{kind} {way} with special tokens: {text:?}"
        );
        assert_eq!(
            tokenizer.decode(&plain, false).unwrap(),
            golden["decoded"][i].as_str().unwrap(),
            "{kind} {way}: decoding {text:?}"
        );
    }
}

fn rows(kind: &str) -> usize {
    // As in real models, the embedding has a few rows that no token uses.
    Tokenizer::from_json(&files(kind).tokenizer_json, &Limits::default()).unwrap().vocabulary_size() + 7
}

fn gguf(kind: &str) -> (Metadata, Vec<String>) {
    let architecture = if kind == "gemma" { "gemma2" } else { kind };
    to_gguf(&files(kind), rows(kind), architecture, &Limits::default()).unwrap()
}

#[test]
fn a_tokenizer_json_gives_the_ids_of_the_library() {
    for kind in KINDS {
        check(&Tokenizer::from_json(&files(kind).tokenizer_json, &Limits::default()).unwrap(), kind, "as read");
    }
}

#[test]
fn a_gguf_written_here_gives_the_same_ids() {
    for kind in KINDS {
        let (metadata, warnings) = gguf(kind);
        assert_eq!(warnings, Vec::<String>::new(), "{kind}");
        check(&Tokenizer::from_gguf(&metadata, &Limits::default()).unwrap(), kind, "through GGUF");
    }
}

#[test]
fn a_tokenizer_json_written_from_a_gguf_gives_the_same_ids() {
    for kind in KINDS {
        let back = to_hf(&gguf(kind).0, &Limits::default()).unwrap();
        let tokenizer = Tokenizer::from_json(&back.tokenizer_json, &Limits::default()).unwrap();
        check(&tokenizer, kind, "through GGUF and back");
        let config: Json = serde_json::from_slice(&back.tokenizer_config_json.unwrap()).unwrap();
        let original = json(&format!("{kind}.config.json"));
        for key in [
            "bos_token",
            "eos_token",
            "pad_token",
            "unk_token",
            "cls_token",
            "sep_token",
            "mask_token",
            "chat_template",
        ] {
            if original[key].is_string() {
                assert_eq!(config[key], original[key], "{kind}: {key}");
            }
        }
        // Written again, the GGUF is the same.
        let again = HfFiles { tokenizer_config_json: Some(serde_json::to_vec(&config).unwrap()), ..back };
        let (second, _) = to_gguf(&again, rows(kind), kind, &Limits::default()).unwrap();
        for key in [
            "model",
            "pre",
            "tokens",
            "token_type",
            "merges",
            "bos_token_id",
            "eos_token_id",
            "add_bos_token",
            "add_eos_token",
        ] {
            let key = format!("tokenizer.ggml.{key}");
            assert_eq!(second.get(&key), gguf(kind).0.get(&key), "{kind}: {key}");
        }
    }
}

#[test]
fn special_tokens_merges_and_flags_are_those_that_gguf_py_reads() {
    let key = |name: &str| match name {
        "unk" => "tokenizer.ggml.unknown_token_id".to_owned(),
        "sep" => "tokenizer.ggml.seperator_token_id".to_owned(),
        "pad" => "tokenizer.ggml.padding_token_id".to_owned(),
        other => format!("tokenizer.ggml.{other}_token_id"),
    };
    for kind in KINDS {
        let (metadata, _) = gguf(kind);
        let expected = &json(&format!("{kind}.golden.json"))["special_vocab"];
        for (name, id) in expected["ids"].as_object().unwrap() {
            assert_eq!(metadata.get(&key(name)), Some(&Value::U32(id.as_u64().unwrap() as u32)), "{kind}: {name}");
        }
        for (name, set) in expected["add"].as_object().unwrap().iter().filter(|(name, _)| *name != "sep") {
            let key = format!("tokenizer.ggml.add_{name}_token");
            assert_eq!(metadata.get(&key), Some(&Value::Bool(set.as_bool().unwrap())), "{kind}: {key}");
        }
        let merges = metadata
            .get("tokenizer.ggml.merges")
            .and_then(|v| v.as_array())
            .and_then(Array::as_strings)
            .cloned()
            .unwrap_or_default();
        for (i, merge) in expected["merges"].as_array().unwrap().iter().enumerate() {
            assert_eq!(merges.get(i), merge.as_str(), "{kind}: merge {i}");
        }
    }
}

#[test]
fn what_a_gguf_holds_has_the_names_and_types_of_the_format() {
    let models = ["gpt2", "gpt2", "gpt2", "llama", "llama", "t5", "bert"];
    let pres = ["qwen2", "llama-bpe", "gpt-2", "default", "default", "default", "default"];
    for ((kind, model), pre) in KINDS.iter().zip(models).zip(pres) {
        let (metadata, _) = gguf(kind);
        let get = |name: &str| metadata.get(&format!("tokenizer.ggml.{name}"));
        assert_eq!(get("model"), Some(&Value::from(model)), "{kind}");
        assert_eq!(get("pre"), Some(&Value::from(pre)), "{kind}");
        let Some(Value::Array(Array::String(tokens))) = get("tokens") else { panic!("{kind}: tokens") };
        let Some(Value::Array(Array::I32(types))) = get("token_type") else { panic!("{kind}: token_type") };
        assert_eq!((tokens.len(), types.len()), (rows(kind), rows(kind)), "{kind}");
        // The last row is a filler of type "unused".
        let last = rows(kind) - 1;
        assert!(tokens.get(last).unwrap().ends_with(&format!("[PAD{last}]")) && types[last] == 5, "{kind}");
        match (model, get("scores")) {
            ("llama" | "t5", Some(Value::Array(Array::F32(scores)))) => assert_eq!(scores.len(), rows(kind), "{kind}"),
            ("gpt2" | "bert", None) => {}
            (_, other) => panic!("{kind}: scores {other:?}"),
        }
        assert_eq!(get("merges").is_some(), model == "gpt2", "{kind}");
    }
    let (metadata, _) = gguf("bert");
    let tokens = metadata.get("tokenizer.ggml.tokens").and_then(|v| v.as_array()).and_then(Array::as_strings).unwrap();
    let tokens: Vec<&str> = tokens.iter().collect();
    assert_eq!(tokens[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    assert!(tokens[5..].iter().all(|t| !t.starts_with("##")) && tokens[5..].iter().any(|t| t.starts_with('▁')));
}

#[test]
fn a_sentencepiece_gguf_without_merges_gives_the_ids_of_sentencepiece() {
    let model = json("llama2.spm.json");
    let list = |key: &str| model[key].as_array().unwrap().clone();
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.tokens", Array::strings(list("tokens").iter().map(|t| t.as_str().unwrap())));
    metadata
        .set("tokenizer.ggml.scores", Array::F32(list("scores").iter().map(|s| s.as_f64().unwrap() as f32).collect()));
    metadata.set(
        "tokenizer.ggml.token_type",
        Array::I32(list("types").iter().map(|t| t.as_i64().unwrap() as i32).collect()),
    );
    let tokenizer = Tokenizer::from_gguf(&metadata, &Limits::default()).unwrap();
    let strings = json("strings.json");
    let texts = strings.as_array().unwrap().iter().map(|s| s.as_str().unwrap()).filter(|s| !s.contains("{special}"));
    for (text, expected) in texts.zip(list("ids")) {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&expected), "{text:?}");
    }
    assert_eq!(tokenizer.encode("hello", true).unwrap()[0], 1, "begin of text is added unless the file says otherwise");
}

#[test]
fn bytes_come_back_one_token_at_a_time() {
    for kind in KINDS {
        let tokenizer = Tokenizer::from_json(&files(kind).tokenizer_json, &Limits::default()).unwrap();
        let size = tokenizer.vocabulary_size() as u32;
        assert!(tokenizer.piece(size).is_none() && tokenizer.piece(size - 1).is_some());
        for token in 0..size {
            let piece = tokenizer.piece(token).unwrap();
            assert_eq!(tokenizer.token(&piece), Some(token), "{kind}");
            tokenizer.decode(&[token], true).unwrap();
        }
        assert!(tokenizer.decode(&[size], true).is_err());
    }
}

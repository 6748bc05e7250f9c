//! Bad files: every one is an error that says where, none is a panic, a hang or a mountain of memory.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use windlass_tensor::{Array, Limits, Metadata, Value};
use windlass_text::{Error, HfFiles, Tokenizer, to_gguf, to_hf};

fn tokenizer_json(kind: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{kind}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn from_json(json: &Json) -> Result<Tokenizer, Error> {
    Tokenizer::from_json(&serde_json::to_vec(json).unwrap(), &Limits::default())
}

fn gguf(kind: &str) -> Metadata {
    let files = HfFiles { tokenizer_json: serde_json::to_vec(&tokenizer_json(kind)).unwrap(), ..HfFiles::default() };
    to_gguf(&files, 700, kind, &Limits::default()).unwrap().0
}

/// A GGUF of five tokens.
fn small() -> Metadata {
    let mut m = Metadata::new();
    m.set("tokenizer.ggml.model", "llama");
    m.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "a", "b"]));
    m.set("tokenizer.ggml.scores", Array::F32(vec![0.0, 0.0, 0.0, -1.0, -2.0]));
    m.set("tokenizer.ggml.token_type", Array::I32(vec![2, 3, 3, 1, 1]));
    m
}

#[test]
fn bad_tokenizer_json_is_an_error() {
    type Change = fn(&mut Json);
    let cases: [(&str, &str, Change); 33] = [
        ("qwen2", "not an object", |t| *t = json!([1])),
        ("qwen2", "no model", |t| t["model"] = Json::Null),
        ("qwen2", "unknown model", |t| t["model"]["type"] = json!("Magic")),
        ("qwen2", "no vocabulary", |t| t["model"]["vocab"] = json!(7)),
        ("qwen2", "a huge id", |t| t["model"]["vocab"]["x y"] = json!(4_000_000_000_u64)),
        ("qwen2", "a negative id", |t| t["model"]["vocab"]["x y"] = json!(-1)),
        ("qwen2", "an id twice", |t| t["model"]["vocab"]["x y"] = json!(5)),
        ("qwen2", "a long token", |t| t["model"]["vocab"]["y".repeat(100_000)] = json!(5000)),
        ("qwen2", "merges that are no list", |t| t["model"]["merges"] = json!("a b")),
        ("qwen2", "a merge of unknown tokens", |t| t["model"]["merges"][3] = json!(["nope", "nada"])),
        ("qwen2", "a merge to an unknown token", |t| t["model"]["merges"][3] = json!(["!", "~"])),
        ("qwen2", "a merge of three", |t| t["model"]["merges"][3] = json!(["a", "b", "c"])),
        ("qwen2", "a merge without space", |t| t["model"]["merges"][3] = json!("ab")),
        ("qwen2", "an unknown unknown", |t| t["model"]["unk_token"] = json!("nope")),
        ("qwen2", "dropout", |t| t["model"]["dropout"] = json!(0.5)),
        ("qwen2", "an expression that does not compile", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(((")
        }),
        ("qwen2", "an expression too large to compile", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"((\p{L}{1000}){1000}){1000}")
        }),
        ("qwen2", "a long expression", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("a".repeat(1 << 20))
        }),
        ("qwen2", "a deep expression", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
                json!(format!("{}a{}", "(?=".repeat(5000), ")".repeat(5000)))
        }),
        ("qwen2", "many steps", |t| {
            t["pre_tokenizer"] =
                json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "WhitespaceSplit"}); 1000]})
        }),
        ("qwen2", "an unknown step", |t| t["pre_tokenizer"] = json!({"type": "Magic"})),
        ("qwen2", "pieces of no length", |t| t["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})),
        ("qwen2", "an unknown normalizer", |t| t["normalizer"] = json!({"type": "Magic"})),
        ("qwen2", "a normalizer that grows", |t| {
            let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
            t["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 40]});
        }),
        ("qwen2", "a replacement that backtracks", |t| {
            t["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(a+)+(?=b)"}, "content": "x"})
        }),
        ("qwen2", "a character map that is none", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="})
        }),
        ("qwen2", "an added token with an id that cannot be", |t| t["added_tokens"][1]["id"] = json!(600)),
        ("qwen2", "an added token twice", |t| t["added_tokens"][1] = t["added_tokens"][0].clone()),
        ("qwen2", "an added token without text", |t| t["added_tokens"][1]["content"] = json!("")),
        ("llama3", "a template with a token that is not there", |t| {
            t["post_processor"]["processors"][1]["special_tokens"]["<|begin_of_text|>"]["ids"] = json!([99999])
        }),
        ("unigram", "a score that is no number", |t| t["model"]["vocab"][5][1] = json!("x")),
        ("unigram", "an unknown id outside", |t| t["model"]["unk_id"] = json!(100_000)),
        ("bert", "words too long to search", |t| t["model"]["max_input_chars_per_word"] = json!(1_000_000_000_u64)),
    ];
    for (kind, name, change) in cases {
        let mut json = tokenizer_json(kind);
        change(&mut json);
        if let Ok(tokenizer) = from_json(&json) {
            panic!("{name} was accepted: {:?}", tokenizer.encode("hello", true));
        }
    }
}

#[test]
fn bytes_that_are_no_json_are_errors() {
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"null", &[b'['; 100_000], &b"{\"a\":".repeat(50_000)] {
        assert!(Tokenizer::from_json(bytes, &Limits::default()).is_err());
    }
    let few = Limits { side_file_bytes: 1000, ..Limits::default() };
    let bytes = serde_json::to_vec(&tokenizer_json("gpt2")).unwrap();
    assert!(matches!(Tokenizer::from_json(&bytes, &few), Err(Error::Limit { .. })));
    let few = Limits { array_items: 100, ..Limits::default() };
    assert!(matches!(Tokenizer::from_json(&bytes, &few), Err(Error::Limit { .. })));
}

#[test]
fn padding_and_truncation_of_the_file_are_not_applied() {
    let mut json = tokenizer_json("gpt2");
    json["padding"] = json!({"strategy": {"Fixed": 1_000_000_000_000_u64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    json["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 9});
    let plain = from_json(&tokenizer_json("gpt2")).unwrap().encode("a b c d", true).unwrap();
    assert_eq!(from_json(&json).unwrap().encode("a b c d", true).unwrap(), plain);
}

#[test]
fn an_expression_that_runs_away_is_an_error_not_wrong_tokens() {
    for regex in ["(?:a|aa)+(?=c)", "(a*)*(?!.)b", "(?=(a+)+b)a|(x+x+)+(?=y)"] {
        let mut json = tokenizer_json("qwen2");
        json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(regex);
        let tokenizer = from_json(&json).unwrap();
        let started = Instant::now();
        let result = tokenizer.encode(&"a".repeat(100_000), false);
        assert!(matches!(result, Err(Error::Library { .. })), "{regex}: {:?}", result.map(|ids| ids.len()));
        assert!(started.elapsed() < Duration::from_secs(30), "{regex} took {:?}", started.elapsed());
    }
}

#[test]
fn a_character_map_full_of_nonsense_does_no_harm() {
    for seed in 0..200_u32 {
        // Pseudo-random words after a plausible size: the library follows offsets in them.
        let words = 64;
        let mut blob = (words * 4_u32).to_le_bytes().to_vec();
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        for _ in 0..words {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            blob.extend(state.to_le_bytes());
        }
        blob.extend(b"ab\0c\0");
        let mut m = gguf("unigram");
        m.set("tokenizer.ggml.precompiled_charsmap", Array::U8(blob));
        if let Ok(tokenizer) = Tokenizer::from_gguf(&m, &Limits::default()) {
            let _ = tokenizer.encode("hello wörld ﬁ 中文", true);
        }
    }
}

#[test]
fn text_that_is_too_long_is_an_error() {
    let limits = Limits { string_bytes: 1000, ..Limits::default() };
    let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&tokenizer_json("gpt2")).unwrap(), &limits).unwrap();
    assert!(matches!(tokenizer.encode(&"a".repeat(1001), false), Err(Error::Limit { .. })));
}

#[test]
fn long_text_is_tokenized_in_reasonable_time() {
    for kind in ["qwen2", "gpt2", "llama2", "unigram", "bert"] {
        let tokenizer = from_json(&tokenizer_json(kind)).unwrap();
        for text in
            ["the quick brown fox ".repeat(10_000), " ".repeat(200_000), "a".repeat(200_000), "\n".repeat(200_000)]
        {
            let started = Instant::now();
            tokenizer.encode(&text, true).unwrap();
            assert!(started.elapsed() < Duration::from_secs(20), "{kind} took {:?}", started.elapsed());
        }
    }
}

#[test]
fn the_small_gguf_works_before_it_is_broken() {
    let tokenizer = Tokenizer::from_gguf(&small(), &Limits::default()).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [1, 0, 3, 4]);
    assert!(to_hf(&small(), &Limits::default()).is_ok());
}

#[test]
fn bad_gguf_keys_are_errors() {
    type Change = fn(&mut Metadata);
    let cases: [(&str, Change); 24] = [
        ("no model", |m| drop(m.remove("tokenizer.ggml.model"))),
        ("a model of another kind", |m| m.set("tokenizer.ggml.model", "rwkv")),
        ("a model that is no text", |m| m.set("tokenizer.ggml.model", 3_u32)),
        ("no tokens", |m| drop(m.remove("tokenizer.ggml.tokens"))),
        ("tokens that are numbers", |m| m.set("tokenizer.ggml.tokens", Array::I32(vec![1, 2, 3, 4, 5]))),
        ("an empty vocabulary", |m| m.set("tokenizer.ggml.tokens", Array::strings([""; 0]))),
        ("fewer scores than tokens", |m| m.set("tokenizer.ggml.scores", Array::F32(vec![0.0; 4]))),
        ("more scores than tokens", |m| m.set("tokenizer.ggml.scores", Array::F32(vec![0.0; 6]))),
        ("a score that is not finite", |m| {
            m.set("tokenizer.ggml.scores", Array::F32(vec![0.0, 0.0, 0.0, f32::NAN, 0.0]))
        }),
        ("scores that are text", |m| m.set("tokenizer.ggml.scores", "x")),
        ("no scores", |m| drop(m.remove("tokenizer.ggml.scores"))),
        ("fewer types than tokens", |m| m.set("tokenizer.ggml.token_type", Array::I32(vec![1; 3]))),
        ("more types than tokens", |m| m.set("tokenizer.ggml.token_type", Array::I32(vec![1; 9]))),
        ("a token twice", |m| m.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "a", "a"]))),
        ("a long token", |m| {
            m.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "a", &"b".repeat(1 << 20)]))
        }),
        ("begin of text outside", |m| m.set("tokenizer.ggml.bos_token_id", 5_u32)),
        ("a negative end of text", |m| m.set("tokenizer.ggml.eos_token_id", -1_i32)),
        ("a huge padding token", |m| m.set("tokenizer.ggml.padding_token_id", u64::MAX)),
        ("an unknown token that is text", |m| m.set("tokenizer.ggml.unknown_token_id", "0")),
        ("a flag that is a number", |m| m.set("tokenizer.ggml.add_bos_token", 1_u32)),
        ("a byte that is none", |m| {
            m.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "a", "<0x-1>"]));
            m.set("tokenizer.ggml.token_type", Array::I32(vec![2, 3, 3, 1, 6]));
        }),
        ("a merge of unknown tokens", |m| m.set("tokenizer.ggml.merges", Array::strings(["a c"]))),
        ("a merge to an unknown token", |m| m.set("tokenizer.ggml.merges", Array::strings(["a b"]))),
        ("merges that are numbers", |m| m.set("tokenizer.ggml.merges", Array::U8(vec![1]))),
    ];
    for (name, change) in cases {
        let mut m = small();
        change(&mut m);
        assert!(Tokenizer::from_gguf(&m, &Limits::default()).is_err(), "{name} was accepted");
        assert!(to_hf(&m, &Limits::default()).is_err(), "{name} was accepted by to_hf");
    }
}

#[test]
fn bad_byte_level_keys_are_errors() {
    type Change = fn(&mut Metadata);
    let cases: [(&str, Change); 3] = [
        ("no merges", |m| drop(m.remove("tokenizer.ggml.merges"))),
        ("an unknown pre-tokenizer", |m| m.set("tokenizer.ggml.pre", "nope")),
        ("a pre-tokenizer that is a number", |m| m.set("tokenizer.ggml.pre", 1_u8)),
    ];
    for (name, change) in cases {
        let mut m = gguf("qwen2");
        change(&mut m);
        assert!(Tokenizer::from_gguf(&m, &Limits::default()).is_err(), "{name} was accepted");
    }
}

#[test]
fn pieces_outside_of_the_alphabet_of_bytes_decode_to_themselves() {
    // Command R has such pieces; nothing is ever encoded to them.
    let mut m = gguf("qwen2");
    let Some(Value::Array(Array::String(tokens))) = m.remove("tokenizer.ggml.tokens") else { panic!("no tokens") };
    let replaced = tokens.iter().enumerate().map(|(i, token)| if i == 600 { "\u{200d} 中" } else { token });
    m.set("tokenizer.ggml.tokens", Array::strings(replaced));
    let tokenizer = Tokenizer::from_gguf(&m, &Limits::default()).unwrap();
    assert_eq!(tokenizer.decode(&[600, 71], false).unwrap(), "\u{200d} 中h");
}

#[test]
fn vocabularies_made_to_be_searched_for_ever_are_refused() {
    // Each piece of n letters has n cuts, each of which is looked up.
    let tokens: Vec<String> = (0..16_000).map(|i| format!("{}{}", "a".repeat(16_000 - i % 8000), i)).collect();
    let count = tokens.len();
    let mut m = small();
    m.set("tokenizer.ggml.tokens", Array::strings(tokens));
    m.set("tokenizer.ggml.scores", Array::F32(vec![0.0; count]));
    m.remove("tokenizer.ggml.token_type");
    let started = Instant::now();
    assert!(matches!(Tokenizer::from_gguf(&m, &Limits::default()), Err(Error::Limit { .. })));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_embedding_smaller_than_the_vocabulary_is_refused() {
    let files = HfFiles { tokenizer_json: serde_json::to_vec(&tokenizer_json("qwen2")).unwrap(), ..HfFiles::default() };
    assert!(matches!(to_gguf(&files, 100, "qwen2", &Limits::default()), Err(Error::Invalid { .. })));
    assert!(matches!(to_gguf(&files, usize::MAX, "qwen2", &Limits::default()), Err(Error::Limit { .. })));
    // Added tokens past the end are left out, as llama.cpp does for Gemma 3's image token, and said.
    let (metadata, warnings) = to_gguf(&files, 423, "qwen2", &Limits::default()).unwrap();
    assert_eq!(metadata.get("tokenizer.ggml.tokens").and_then(|v| v.as_array()).map(Array::len), Some(423));
    assert!(warnings.iter().any(|w| w.contains("<tool_call>")), "{warnings:?}");
}

#[test]
fn what_gguf_cannot_say_is_said_as_a_warning() {
    let warn = |change: fn(&mut Json)| {
        let mut json = tokenizer_json("qwen2");
        change(&mut json);
        let files = HfFiles { tokenizer_json: serde_json::to_vec(&json).unwrap(), ..HfFiles::default() };
        let (metadata, warnings) = to_gguf(&files, 500, "qwen2", &Limits::default()).unwrap();
        (metadata.get("tokenizer.ggml.pre").cloned().unwrap(), warnings)
    };
    let (pre, warnings) = warn(|t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\w+|\W+"));
    assert_eq!((pre, warnings.len()), (Value::from("default"), 1), "{warnings:?}");
    let (pre, warnings) = warn(|t| t["normalizer"] = json!({"type": "NFKC"}));
    assert_eq!((pre, warnings.len()), (Value::from("qwen2"), 1), "{warnings:?}");
    let (pre, warnings) = warn(|t| t["normalizer"] = Json::Null);
    assert_eq!((pre, warnings.len()), (Value::from("stablelm2"), 0), "{warnings:?}");
}

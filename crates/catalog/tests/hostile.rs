//! Configurations that should not be: each is an error that names the key, what was expected and what was found.

#![allow(clippy::unwrap_used)]

mod common;

use serde_json::{Value as Json, json};
use windlass_catalog::{Error, from_gguf, from_hf_config};
use windlass_tensor::{Array, Metadata, Value};

fn config() -> Json {
    common::cases().into_iter().find(|c| c.name == "qwen3moe").unwrap().config().clone()
}

fn refused(key: &str, value: Json) -> String {
    let mut config = config();
    config[key] = value.clone();
    match from_hf_config(&config) {
        Ok(_) => panic!("{key} = {value} was accepted"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn wrong_types_and_sizes_are_refused_by_name() {
    let keys = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "num_local_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
    ];
    let values =
        [json!(-1), json!("32"), json!([32]), json!({}), json!(true), json!(1.5), json!(u64::MAX), json!(1e300)];
    for key in keys {
        for value in &values {
            let message = refused(key, value.clone());
            assert!(message.starts_with(&format!("{key}: expected ")) && message.contains("found"), "{message}");
        }
        if key != "num_local_experts" {
            refused(key, json!(0));
        }
    }
    for value in [json!(0.0), json!(-1e-6), json!("x"), json!(1e300)] {
        assert!(refused("rms_norm_eps", value).starts_with("rms_norm_eps: expected a positive number"));
    }
    assert!(refused("tie_word_embeddings", json!(1)).contains("true or false"));
    assert!(refused("rope_parameters", json!(7)).contains("an object"));
    assert!(refused("rope_parameters", json!({"rope_type": "linear"})).contains("rope_scaling.factor is missing"));
    assert!(refused("rope_parameters", json!({"rope_type": "dynamic", "factor": 2.0})).contains("not supported"));
    assert!(refused("hidden_act", json!("relu2")).contains("not supported"));
    assert!(refused("mlp_only_layers", json!([1])).contains("not supported"));
    assert!(refused("architectures", json!(["GPT9"])).contains("known are mixtral"));
}

#[test]
fn contradictions_are_refused() {
    assert!(refused("num_key_value_heads", json!(3)).contains("a divisor of the 4 heads"));
    assert!(refused("head_dim", json!(15)).contains("an even number"));
    assert!(refused("num_experts_per_tok", json!(5)).contains("1 to 4"));
    assert!(refused("num_local_experts", json!(0)).contains("experts"));
    let mut odd = config();
    odd["head_dim"] = Json::Null;
    odd["hidden_size"] = json!(33);
    assert!(from_hf_config(&odd).unwrap_err().to_string().contains("a divisor of hidden_size 33"));
    // Each within its bound, but not together.
    let mut wide = config();
    wide["num_attention_heads"] = json!(1 << 20);
    wide["num_key_value_heads"] = json!(1);
    wide["head_dim"] = json!(1 << 20);
    assert!(from_hf_config(&wide).unwrap_err().to_string().starts_with("head_dim: expected at most"));
    let mut many = config();
    many["num_hidden_layers"] = json!(1024);
    many["num_local_experts"] = json!(4096);
    assert!(from_hf_config(&many).unwrap_err().to_string().starts_with("num_experts: "));
}

#[test]
fn long_lists_and_long_texts_are_cut_short() {
    let message = refused("architectures", json!(["x".repeat(100_000)]));
    assert!(message.len() < 300, "{} bytes", message.len());
    let message = refused("hidden_size", json!("y".repeat(100_000)));
    assert!(message.len() < 300, "{} bytes", message.len());
    let mut phi = common::cases().into_iter().find(|c| c.name == "phi3-long").unwrap().config().clone();
    phi["rope_parameters"]["long_factor"] = json!([1.0, 2.0]);
    assert!(from_hf_config(&phi).unwrap_err().to_string().contains("expected 4 positive numbers, found 2 numbers"));
}

#[test]
fn what_is_no_configuration_is_refused() {
    for config in
        [json!(null), json!([]), json!({}), json!({"architectures": []}), json!({"architectures": "LlamaForCausalLM"})]
    {
        assert!(from_hf_config(&config).is_err(), "{config}");
    }
    let missing = from_hf_config(&json!({"model_type": "llama"})).unwrap_err();
    assert!(matches!(&missing, Error::Missing { key, .. } if key == "hidden_size"), "{missing}");
}

fn metadata() -> Metadata {
    let (architecture, hyper) = from_hf_config(&config()).unwrap();
    let mut metadata = architecture.to_gguf(&hyper);
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::strings(vec![""; hyper.vocab()])));
    metadata
}

fn refused_in_gguf(key: &str, value: impl Into<Value>) -> String {
    let mut metadata = metadata();
    metadata.set(key, value);
    from_gguf(&metadata).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn metadata_are_checked_alike() {
    let refused = |key: &str, value: Value| refused_in_gguf(key, value);
    assert_eq!(
        refused("qwen3moe.block_count", 5000u32.into()),
        "qwen3moe.block_count: expected an integer from 1 to 1024, found 5000"
    );
    assert!(refused("qwen3moe.block_count", (-2i32).into()).contains("found -2"));
    assert!(refused("qwen3moe.block_count", "2".into()).contains("expected an integer"));
    assert!(refused("qwen3moe.attention.head_count_kv", 3u32.into()).contains("a divisor of the 4 heads"));
    assert!(refused("qwen3moe.attention.value_length", 8u32.into()).contains("the key length, 16"));
    assert!(refused("qwen3moe.rope.freq_base", f32::NAN.into()).contains("a positive number"));
    assert!(refused("qwen3moe.rope.dimension_count", 7u32.into()).contains("an even number"));
    assert!(refused("qwen3moe.rope.scaling.type", "llama3".into()).contains("not supported"));
    assert!(refused("qwen3moe.expert_used_count", 9u32.into()).contains("1 to 4"));
    assert!(refused("tokenizer.ggml.tokens", Value::Array(Array::strings([""; 0]))).contains("a list of 1 to"));
    assert!(refused("general.architecture", "nothing".into()).contains("is not known"));
    assert!(refused("general.architecture", 1u32.into()).contains("expected a string"));
    for key in ["qwen3moe.embedding_length", "tokenizer.ggml.tokens", "general.architecture"] {
        let mut metadata = metadata();
        metadata.remove(key);
        let message = from_gguf(&metadata).map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{key} is missing; expected ")), "{message}");
    }
}

#[test]
fn lists_per_layer_do_if_all_are_equal() {
    let mut metadata = metadata();
    metadata.set("qwen3moe.attention.head_count_kv", Value::Array(Array::I32(vec![2, 2])));
    assert_eq!(from_gguf(&metadata).unwrap().1.kv_heads(), 2);
    let message = refused_in_gguf("qwen3moe.attention.head_count_kv", Value::Array(Array::I32(vec![2, 4])));
    assert!(message.contains("one integer for all layers"), "{message}");
    let message = refused_in_gguf("qwen3moe.attention.head_count_kv", Value::Array(Array::I32(vec![])));
    assert!(message.contains("one integer for all layers"), "{message}");
}

#[test]
fn factors_must_fit_the_heads() {
    let (architecture, hyper) = from_gguf(&metadata()).unwrap();
    let absorb = |lists: &[(&str, usize)]| {
        let lists: Vec<_> = lists.iter().map(|(name, n)| (name.to_string(), vec![1.0f32; *n])).collect();
        architecture.absorb(hyper.clone(), &lists)
    };
    assert!(absorb(&[("rope_freqs.weight", 8)]).is_ok());
    assert!(absorb(&[("rope_freqs.weight", 7)]).is_err());
    assert!(absorb(&[("rope_factors_long.weight", 8)]).is_err());
    assert!(absorb(&[("rope_factors_long.weight", 8), ("rope_factors_short.weight", 8)]).is_ok());
}

//! Hostile adapters: descriptions and factors that contradict themselves or each other are refused by name.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/checkpoint.rs"]
mod checkpoint;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "support/hostile.rs"]
mod hostile;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "support/pickle.rs"]
mod pickle;

use std::path::Path;

use checkpoint::{Array, file};
use hostile::Attack;
use serde_json::{Value as Json, json};
use windlass_formats::adapter::{self, Adapter};
use windlass_formats::{Error, open};
use windlass_tensor::{DType, Limits};

const A: &str = "base_model.model.m.lora_A.weight";
const B: &str = "base_model.model.m.lora_B.weight";

/// A valid adapter, to be changed: rank 2 of a matrix of 4 rows and 8 columns.
#[derive(Clone)]
struct Base {
    config: Json,
    weights: &'static str,
    arrays: Vec<(String, Vec<usize>)>,
}

fn peft() -> Base {
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    let arrays = vec![(A.into(), vec![2, 8]), (B.into(), vec![4, 2])];
    Base { config, weights: "adapter_model.safetensors", arrays }
}

fn mlx() -> Base {
    let config = json!({"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 2.0}});
    let arrays = vec![("m.lora_a".into(), vec![8, 2]), ("m.lora_b".into(), vec![2, 4])];
    Base { config, weights: "adapters.safetensors", arrays }
}

impl Base {
    fn set(mut self, key: &str, value: Json) -> Base {
        self.config[key] = value;
        self
    }

    fn without(mut self, name: &str) -> Base {
        self.arrays.retain(|(n, _)| n != name);
        self
    }

    /// Another shape; further arrays too.
    fn with(mut self, name: &str, shape: &[usize]) -> Base {
        self.arrays.retain(|(n, _)| n != name);
        self.arrays.push((name.into(), shape.into()));
        self
    }

    fn weights(&self) -> Vec<u8> {
        let array = |(name, shape): &(String, Vec<usize>)| {
            Array::new(name, DType::F32, shape, vec![0; shape.iter().product::<usize>() * 4])
        };
        file(&self.arrays.iter().map(array).collect::<Vec<_>>())
    }

    fn refused(self, name: &'static str, idea: &'static str, stopped_by: &'static str) -> Attack {
        let config = self.config.to_string();
        self.described(&config, name, idea, stopped_by)
    }

    fn described(self, config: &str, name: &'static str, idea: &'static str, stopped_by: &'static str) -> Attack {
        let files = vec![("adapter_config.json", config.as_bytes().to_vec()), (self.weights, self.weights())];
        Attack { name, idea, stopped_by, files }
    }
}

fn attacks() -> Vec<Attack> {
    let config = || peft().config.to_string();
    let deep = format!("{{\"peft_type\": \"LORA\", \"r\": 2, \"x\": {}{}}}", "[".repeat(600), "]".repeat(600));
    let system = [pickle::call(pickle::global("os", "system"), &[pickle::text("true")]), b".".to_vec()].concat();
    let legacy = Attack {
        name: "pickle-that-runs",
        idea: "older PEFT's adapter_model.bin is a pickle, and this one wants to run a program",
        stopped_by: "os",
        files: vec![
            ("adapter_config.json", config().into_bytes()),
            ("adapter_model.bin", [&[0x80, 2], &system[..]].concat()),
        ],
    };
    vec![
        peft().described("[]", "config-list", "a description that is a list", "adapter_config.json"),
        peft().described("{", "config-cut", "a description that ends early", "adapter_config.json"),
        peft().described(&deep, "config-deep", "a description nested without end", "nest"),
        peft().described("{\"r\": 2}", "config-nobody", "a description of no known tool", "peft_type"),
        peft().described(&config().replace("\"r\":2", "\"r\":2,\"r\":3"), "rank-twice", "two ranks", "twice"),
        peft().set("r", json!(0)).refused("rank-zero", "rank 0", "r must be a rank"),
        peft().set("r", json!(1_u64 << 40)).refused("rank-huge", "a rank that no memory holds", "r must be a rank"),
        peft().set("r", json!("2")).refused("rank-text", "a rank in words", "r must be a rank"),
        peft().set("r", json!(3)).refused("rank-other", "another rank than the factors have", "says 3"),
        peft().set("lora_alpha", json!("x")).refused("alpha-text", "a scale in words", "lora_alpha"),
        peft().set("use_rslora", json!(1)).refused("flag-number", "a switch that is a number", "use_rslora"),
        peft().set("rank_pattern", json!({"m(": 2})).refused("pattern-open", "an open bracket", "regular expression"),
        peft().set("rank_pattern", json!({"m{1000}{1000}{1000}": 2})).refused(
            "pattern-large",
            "an expression that would take all memory",
            "regular expression",
        ),
        peft().set("rank_pattern", json!([2])).refused("pattern-list", "patterns that are a list", "rank_pattern"),
        peft().set("alpha_pattern", json!({"m": null})).refused(
            "pattern-null",
            "a pattern for nothing",
            "alpha_pattern",
        ),
        peft().set("alora_invocation_tokens", json!([-1])).refused("tokens", "a negative token", "token numbers"),
        peft().without(A).refused("no-a", "B without A", "factor A of module"),
        peft().without(B).refused("no-b", "A without B", "factor B of module"),
        peft().with(B, &[4, 3]).refused("ranks-differ", "factors of two ranks", "has rank 3"),
        peft().with(A, &[2, 8, 1]).refused("dimensions", "a factor of three dimensions", "expected 2 dimensions"),
        peft().with(A, &[16]).refused("vector", "a factor that is a vector", "expected 2 dimensions"),
        peft().with(A, &[0, 8]).with(B, &[4, 0]).refused("no-rank", "factors of rank 0", "has rank 0"),
        peft().with("base_model.model.m.lora_magnitude_vector", &[5]).refused(
            "magnitude",
            "a length for a row that is not there",
            "expected shape [4]",
        ),
        peft().with("base_model.model.m.lora_embedding_A", &[2, 8]).refused(
            "two-forms",
            "a module that is linear and an embedding",
            "two tensors for A",
        ),
        mlx().set("lora_parameters", json!(7)).refused("mlx-parameters", "parameters that are a number", "an object"),
        mlx().set("lora_parameters", json!({"rank": 2})).refused("mlx-no-scale", "no scale", "scale"),
        mlx().set("fine_tune_type", json!(3)).refused("mlx-kind", "a kind that is a number", "fine_tune_type"),
        mlx().with("m.lora_b", &[3, 4]).refused("mlx-ranks", "factors of two ranks", "has rank 3"),
        mlx().with("m.lora_a", &[3, 8, 2]).refused("mlx-experts", "experts in one factor only", "dimensions"),
        legacy,
    ]
}

fn read(path: &Path) -> Result<Adapter, Error> {
    let source = open(path, &Limits::default())?;
    Ok(adapter::read(&source, &Limits::default())?.expect("it is an adapter"))
}

/// What is changed in each attack is all that is wrong with it.
#[test]
fn unchanged_adapters_are_read() {
    for base in [peft(), mlx()] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), base.config.to_string()).unwrap();
        std::fs::write(folder.path().join(base.weights), base.weights()).unwrap();
        let found = read(folder.path()).unwrap();
        let module = &found.modules[0];
        assert_eq!((module.rank, module.inputs, module.outputs, module.scale), (2, 8, 4, 2.0));
    }
}

#[test]
fn committed_files_are_those_that_are_built_here() {
    hostile::assert_committed("adapters", &attacks());
}

#[test]
fn every_attack_is_refused_for_its_own_reason() {
    hostile::assert_refused_by("adapters", &attacks(), read);
}

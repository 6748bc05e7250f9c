//! Mixtures against llama.cpp's own choices (`tests/golden/recipes.txt`), and what is hand-derived from the rules.

use std::collections::BTreeMap;

use super::mixture::{Chooser, FileType, more_bits};
use super::*;

/// A model of the golden file with its tensors, and for a file type the answers without and with an importance matrix.
struct Golden {
    name: String,
    model: ModelFacts,
    tensors: Vec<(String, Vec<usize>)>,
    types: BTreeMap<String, [Vec<String>; 2]>,
}

fn golden() -> Vec<Golden> {
    let path = format!("{}/tests/golden/recipes.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut all: Vec<Golden> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse().unwrap();
        if words[0] == "model" {
            let model = ModelFacts {
                architecture: words[2].into(),
                layers: number(3),
                experts: number(4),
                heads: number(5),
                kv_heads: number(6),
                tied: true,
                has_imatrix: false,
            };
            all.push(Golden { name: words[1].into(), model, tensors: Vec::new(), types: BTreeMap::new() });
            continue;
        }
        let last = all.last_mut().unwrap();
        if words[0] == "tensor" {
            let shape: Vec<usize> = words[2].split(',').map(|n| n.parse().unwrap()).collect();
            let count = if words[1].contains('*') { last.model.layers } else { 1 };
            last.tensors.extend((0..count).map(|i| (words[1].replace('*', &i.to_string()), shape.clone())));
        } else {
            let run = |run: &&str| {
                let (name, count) = run.split_once('*').unwrap();
                std::iter::repeat_n(name.to_string(), count.parse().unwrap())
            };
            let types: Vec<String> = words[3..].iter().flat_map(run).collect();
            let both = last.types.entry(words[1].into()).or_default();
            for (i, answer) in ["no", "yes"].iter().enumerate() {
                if words[2] == "any" || words[2] == *answer {
                    both[i] = types.clone();
                }
            }
        }
    }
    all
}

fn plan_names(golden: &Golden, file: &'static FileType, has_imatrix: bool) -> Vec<String> {
    // Whether an importance matrix is missing is asked elsewhere; here the types matter.
    let source = |shape: &[usize]| Element::Plain(if shape.len() == 1 { DType::F32 } else { DType::F16 });
    let elements: Vec<Element> = golden.tensors.iter().map(|t| source(&t.1)).collect();
    let facts: Vec<TensorFacts> = golden
        .tensors
        .iter()
        .zip(&elements)
        .map(|((name, shape), element)| TensorFacts { name, alias: None, shape, layer: None, element })
        .collect();
    let model = ModelFacts { has_imatrix, ..golden.model.clone() };
    let mut order: Vec<usize> = (0..facts.len()).collect();
    order.sort_by(|a, b| visiting_order(facts[*a].name, facts[*b].name));
    let mut chooser = Chooser::new(file, &facts, &model);
    let mut names = vec![String::new(); facts.len()];
    for i in order {
        let name = match chooser.wanted(&facts[i]).unwrap() {
            Some(name) => name.to_string(),
            None => kept(&facts[i], Target::Gguf).name().to_lowercase(),
        };
        names[i] = name;
    }
    names
}

#[test]
fn mixtures_equal_llama_quantize() {
    let mut compared = 0;
    for golden in golden() {
        for (file_type, answers) in &golden.types {
            let Some(file) = FileType::named(file_type) else { continue };
            for has_imatrix in [false, true] {
                let expected = &answers[usize::from(has_imatrix)];
                let names = plan_names(&golden, file, has_imatrix);
                assert_eq!(names.len(), expected.len());
                for (i, (name, expected)) in names.iter().zip(expected).enumerate() {
                    let tensor = &golden.tensors[i].0;
                    assert_eq!(name, expected, "{} {file_type} imatrix {has_imatrix}: {tensor}", golden.name);
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 11 * 30 * 2);
}

#[test]
fn float_recipes_equal_llama_quantize() {
    for golden in golden() {
        let elements = vec![Element::Plain(DType::F32); golden.tensors.len()];
        let facts: Vec<TensorFacts> = golden
            .tensors
            .iter()
            .zip(&elements)
            .map(|((name, shape), element)| TensorFacts { name, alias: None, shape, layer: None, element })
            .collect();
        for name in ["f16", "bf16"] {
            let plan = Recipe::named(name).unwrap().plan(&facts, &golden.model, Target::Gguf).unwrap();
            let names: Vec<String> = plan.iter().map(|e| e.name().to_lowercase()).collect();
            assert_eq!(names, golden.types[name][0], "{} {name}", golden.name);
        }
    }
}

/// A dense transformer's matrices, layer by layer.
fn transformer(layers: usize, tied: bool) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![("token_embd.weight".to_string(), vec![512, 1024])];
    for i in 0..layers {
        for kind in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            tensors.push((format!("blk.{i}.{kind}.weight"), vec![1024, 1024]));
        }
        tensors.push((format!("blk.{i}.attn_norm.weight"), vec![1024]));
    }
    if !tied {
        tensors.push(("output.weight".into(), vec![512, 1024]));
    }
    tensors
}

fn chosen(file: &str, layers: usize, tied: bool, kv_heads: usize) -> BTreeMap<String, String> {
    let model = ModelFacts { architecture: "llama".into(), layers, heads: 32, kv_heads, tied, ..ModelFacts::default() };
    let golden = Golden { name: String::new(), model, tensors: transformer(layers, tied), types: BTreeMap::new() };
    let names = plan_names(&golden, FileType::named(file).unwrap(), false);
    golden.tensors.into_iter().map(|t| t.0).zip(names).collect()
}

/// Layers of a kind that have this type.
fn layers_with(plan: &BTreeMap<String, String>, kind: &str, name: &str) -> Vec<usize> {
    let is = |i: &usize| plan.get(&format!("blk.{i}.{kind}.weight")).is_some_and(|n| n == name);
    (0..plan.len()).filter(is).collect()
}

#[test]
fn a_llama_of_32_layers_by_hand() {
    let plan = chosen("q4_k_m", 32, false, 8);
    // The first four, the last four, and every third between, beginning with the seventh.
    let more = vec![0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
    assert_eq!(layers_with(&plan, "attn_v", "q6_k"), more);
    assert_eq!(layers_with(&plan, "ffn_down", "q6_k"), more);
    assert_eq!(layers_with(&plan, "ffn_up", "q4_k").len(), 32);
    assert_eq!((&*plan["output.weight"], &*plan["token_embd.weight"]), ("q6_k", "q4_k"));
    assert_eq!(plan["blk.0.attn_norm.weight"], "f32");

    let plan = chosen("q5_k_s", 32, false, 8);
    assert!(["attn_v", "ffn_down", "attn_q"].iter().all(|kind| layers_with(&plan, kind, "q5_k").len() == 32));
    assert_eq!((&*plan["output.weight"], &*plan["token_embd.weight"]), ("q6_k", "q5_k"));

    let plan = chosen("q3_k_m", 32, false, 8);
    assert_eq!(layers_with(&plan, "attn_v", "q5_k"), [0, 1]);
    assert_eq!(layers_with(&plan, "attn_v", "q4_k").len(), 30);
    assert_eq!(layers_with(&plan, "ffn_down", "q5_k"), [0, 1]);
    assert_eq!(layers_with(&plan, "ffn_down", "q4_k").len(), 30);
    assert_eq!(layers_with(&plan, "attn_output", "q4_k").len(), 32);
    assert_eq!(layers_with(&plan, "attn_q", "q3_k").len(), 32);

    // Four query heads to a value head give the values more than three bits.
    let plan = chosen("q2_k", 32, false, 8);
    assert_eq!(layers_with(&plan, "attn_v", "q4_k").len(), 32);
    assert_eq!(layers_with(&plan, "ffn_down", "q3_k").len(), 32);
    assert_eq!(layers_with(&plan, "attn_output", "q3_k").len(), 32);
    assert_eq!(layers_with(&plan, "ffn_gate", "q2_k").len(), 32);
}

#[test]
fn a_tied_model_of_28_layers_by_hand() {
    let plan = chosen("q4_k_m", 28, true, 16);
    let more = vec![0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27];
    assert_eq!(layers_with(&plan, "attn_v", "q6_k"), more);
    assert_eq!(layers_with(&plan, "ffn_down", "q6_k"), more);
    assert_eq!(plan["token_embd.weight"], "q6_k");
    assert_eq!(layers_with(&chosen("q3_k_m", 28, true, 16), "ffn_down", "q5_k"), [0]);
    assert_eq!(layers_with(&chosen("q2_k", 28, true, 16), "attn_v", "q3_k").len(), 28);
    assert_eq!(chosen("q4_0", 28, true, 16)["token_embd.weight"], "q6_k");
    assert_eq!(chosen("q8_0", 28, true, 16)["token_embd.weight"], "q8_0");
}

#[test]
fn more_bits_go_to_the_ends_and_every_third() {
    let layers: Vec<usize> = (0..16).filter(|i| more_bits(*i, 16)).collect();
    assert_eq!(layers, [0, 1, 4, 7, 10, 13, 14, 15]);
    assert!(more_bits(0, 1));
}

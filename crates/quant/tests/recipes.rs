//! Recipes through their public face.

#![allow(clippy::unwrap_used)]

use windlass_quant::recipe::{ImportanceMatrix, ModelFacts, Recipe, Target, TensorFacts};
use windlass_quant::{Error, Packing, scheme};
use windlass_tensor::{DType, Element};

const TENSORS: [(&str, &str, &[usize]); 10] = [
    ("token_embd.weight", "model.embed_tokens.weight", &[512, 1024]),
    ("output_norm.weight", "model.norm.weight", &[1024]),
    ("output.weight", "lm_head.weight", &[512, 1024]),
    ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", &[1024, 1024]),
    ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias", &[1024]),
    ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", &[1024, 1024]),
    ("blk.0.ffn_gate_inp.weight", "model.layers.0.mlp.gate.weight", &[8, 1024]),
    ("blk.0.ffn_down_exps.weight", "model.layers.0.mlp.experts.down_proj", &[8, 1024, 96]),
    ("blk.0.ssm_conv1d.weight", "model.layers.0.conv1d.weight", &[1024, 4]),
    ("blk.0.rows.weight", "rows", &[4, 100]),
];

fn plan(
    recipe: &Recipe,
    architecture: &str,
    element: impl Into<Element>,
    target: Target,
) -> Result<Vec<Element>, Error> {
    let element = element.into();
    let fact = |t: &(&'static str, &'static str, &'static [usize])| (t.0, t.1, t.2);
    let facts: Vec<TensorFacts> = TENSORS
        .iter()
        .map(fact)
        .map(|(name, alias, shape)| TensorFacts { name, alias: Some(alias), shape, layer: None, element: &element })
        .collect();
    let model = ModelFacts {
        architecture: architecture.into(),
        layers: 1,
        experts: 8,
        heads: 8,
        kv_heads: 8,
        ..Default::default()
    };
    recipe.plan(&facts, &model, target)
}

fn names(recipe: &Recipe, architecture: &str, target: Target) -> Vec<String> {
    let plan = plan(recipe, architecture, DType::BF16, target).unwrap();
    plan.iter().map(|e| e.name().to_lowercase()).collect()
}

#[test]
fn float_recipes_follow_the_target() {
    let recipe = Recipe::named("F16").unwrap();
    let gguf = names(&recipe, "llama", Target::Gguf);
    assert_eq!(gguf, ["f16", "f32", "f16", "f16", "f32", "f16", "f32", "f16", "f32", "f16"]);
    assert_eq!(names(&recipe, "llama", Target::Hf), vec!["f16"; 10]);
    assert_eq!(recipe.file_type(), Some(1));
    let integers = plan(&recipe, "llama", DType::I32, Target::Gguf).unwrap();
    assert!(integers.iter().all(|e| *e == Element::Plain(DType::I32)));
    let kept = names(&Recipe::keep(), "llama", Target::Gguf);
    assert_eq!(kept, ["bf16", "f32", "bf16", "bf16", "f32", "bf16", "f32", "bf16", "f32", "bf16"]);
    assert_eq!(names(&Recipe::keep(), "llama", Target::Mlx), vec!["bf16"; 10]);
}

#[test]
fn mlx_recipes_follow_mlx_lm() {
    let recipe = Recipe::named("mlx4-g32").unwrap();
    let four = "mlx4-g32";
    let expected = [four, "bf16", four, four, "bf16", four, four, four, "bf16", "bf16"];
    assert_eq!(names(&recipe, "llama", Target::Mlx), expected);
    // The router of these has 8 bits, or is no linear layer at all.
    assert_eq!(names(&recipe, "qwen3moe", Target::Mlx)[6], "mlx8-g64");
    assert_eq!(names(&recipe, "deepseek2", Target::Mlx)[6], "bf16");
    // Rows of 96 are no whole groups of 64.
    assert_eq!(names(&Recipe::named("mlx4-g64").unwrap(), "llama", Target::Mlx)[7], "bf16");
    let mixed = names(&Recipe::named("mixed_3_6").unwrap(), "llama", Target::Mlx);
    assert_eq!([&*mixed[0], &*mixed[2], &*mixed[3], &*mixed[5]], ["mlx3-g64", "mlx6-g64", "mlx3-g64", "mlx6-g64"]);
    // Scales have the type of the model.
    let plan = plan(&recipe, "llama", DType::BF16, Target::Mlx).unwrap();
    let Element::Packed(layout) = &plan[0] else { panic!("{:?}", plan[0]) };
    assert_eq!(layout.as_any().downcast_ref::<Packing>().unwrap().float, DType::BF16);
}

#[test]
fn pure_is_the_same_for_every_matrix() {
    let pure = Recipe::pure(Packing { scheme: scheme("q4_0").unwrap(), float: DType::F32 }.element());
    let four = "q4_0";
    // Three rows of blocks of 32 fit 96 columns; 100 columns do not, and nothing smaller is left but a float.
    let expected = [four, "f32", four, four, "f32", four, "f32", four, "f32", "f16"];
    assert_eq!(names(&pure, "llama", Target::Gguf), expected);
    assert_eq!(names(&Recipe::pure_named("Q4_0").unwrap(), "llama", Target::Gguf), expected);
    assert_eq!(names(&Recipe::named("q4_0").unwrap(), "llama", Target::Gguf)[2], "q6_k");
}

#[test]
fn rules_come_first() {
    let text = r#"
        base = "q8_0"
        [[rule]]
        match = "blk.*.attn_q.*"
        scheme = "q4_1"
        [[rule]]
        match = "model.layers.*.v_proj.weight"
        scheme = "f32"
        [[rule]]
        match = "*"
        scheme = "q5_0"
    "#;
    let recipe = Recipe::from_toml(text).unwrap();
    let expected = ["q5_0", "f32", "q5_0", "q4_1", "f32", "f32", "f32", "q5_0", "f32", "f16"];
    assert_eq!(names(&recipe, "llama", Target::Gguf), expected);
    let keep = "default = \"q8_0\"\n[[rule]]\nmatch = \"lm_head.weight\"\nscheme = \"keep\"";
    let names = names(&Recipe::from_toml(keep).unwrap(), "llama", Target::Gguf);
    assert_eq!([&*names[0], &*names[2]], ["q8_0", "bf16"]);
}

#[test]
fn mistakes_are_errors_with_a_suggestion() {
    let suggestion = |e: Error| match e {
        Error::Unknown { suggestion, .. } => suggestion,
        other => panic!("{other}"),
    };
    assert_eq!(suggestion(Recipe::named("q4_k_n").unwrap_err()).as_deref(), Some("q4_k_m"));
    assert_eq!(suggestion(Recipe::named("mlx4-g65").unwrap_err()).as_deref(), Some("mlx4-g64"));
    let rule = "[[rule]]\nmatch = \"*\"\nscheme = \"q4_9\"";
    assert!(suggestion(Recipe::from_toml(rule).unwrap_err()).is_some());
    for text in [
        "base = 3",
        "bass = \"q4_0\"",
        "base = \"q4_0\"\ndefault = \"q4_0\"",
        "[[rule]]\nmatch = \"\"\nscheme = \"f16\"",
    ] {
        assert!(matches!(Recipe::from_toml(text), Err(Error::Recipe(_))), "{text}");
    }
}

#[test]
fn every_name_makes_a_recipe() {
    let names = Recipe::names();
    assert!(["f16", "q4_0", "mlx4-g64", "mixed_4_6"].iter().all(|n| names.contains(n)));
    for name in names {
        Recipe::named(name).unwrap();
        Recipe::pure_named(name).unwrap();
    }
}

#[test]
fn importance_is_found_by_name_and_size() {
    let mut matrix = ImportanceMatrix::new();
    matrix.insert("blk.0.attn_q.weight", vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    matrix.insert_sums("blk.0.ffn_down_exps.weight", &[2.0, 4.0, 7.0, 9.0], &[2.0, 0.0]).unwrap();
    assert_eq!(matrix.get("blk.0.attn_q.weight", 4, 1).unwrap()[3], 4.0);
    assert_eq!(matrix.get("blk.0.attn_q.weight", 2, 1), None);
    assert_eq!(matrix.get("blk.0.attn_k.weight", 4, 1), None);
    assert_eq!(matrix.get("blk.0.ffn_down_exps.weight", 2, 2).unwrap(), [1.0, 2.0, 1.0, 1.0]);
    assert!(matrix.insert("bad", vec![f32::NAN]).is_err());
    assert!(matrix.insert_sums("bad", &[1.0; 3], &[1.0, 2.0]).is_err());
    assert!(matrix.insert_sums("bad", &[1.0], &[]).is_err());
}

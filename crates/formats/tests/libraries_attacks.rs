//! Hostile checkpoints of the libraries that quantize: each contradiction is refused with a message that names tensor
//! and array.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/checkpoint.rs"]
mod checkpoint;
#[allow(dead_code, reason = "shared with other test programs")]
#[path = "support/hostile.rs"]
mod hostile;

use checkpoint::{Array, file};
use hostile::Attack;
use serde_json::{Value as Json, json};
use windlass_tensor::DType::{self, *};

/// Arrays of zeros.
fn zeros(arrays: &[(&str, DType, &[usize])]) -> Vec<Array> {
    let array = |(name, dtype, shape): &(&str, DType, &[usize])| {
        Array::new(name, *dtype, shape, vec![0; shape.iter().product::<usize>() * dtype.size()])
    };
    arrays.iter().map(array).collect()
}

/// A valid checkpoint, to be changed.
#[derive(Clone)]
struct Base {
    config: Json,
    arrays: Vec<Array>,
}

impl Base {
    fn new(quantization: Json, arrays: &[(&str, DType, &[usize])]) -> Base {
        Base { config: json!({"quantization_config": quantization}), arrays: zeros(arrays) }
    }

    fn set(mut self, key: &str, value: Json) -> Base {
        self.config["quantization_config"][key] = value;
        self
    }

    fn without(mut self, name: &str) -> Base {
        assert!(self.arrays.iter().any(|a| a.name == name), "{name}");
        self.arrays.retain(|a| a.name != name);
        self
    }

    /// Another type or shape; further arrays too.
    fn with(mut self, name: &str, dtype: DType, shape: &[usize]) -> Base {
        self.arrays.retain(|a| a.name != name);
        self.arrays.extend(zeros(&[(name, dtype, shape)]));
        self
    }

    fn bytes(mut self, name: &str, bytes: &[u8]) -> Base {
        let array = self.arrays.iter_mut().find(|a| a.name == name).unwrap();
        array.bytes[..bytes.len()].copy_from_slice(bytes);
        self
    }

    fn refused(self, name: &'static str, idea: &'static str, stopped_by: &'static str) -> Attack {
        let config = self.config.to_string().into_bytes();
        Attack {
            name,
            idea,
            stopped_by,
            files: vec![("config.json", config), ("model.safetensors", file(&self.arrays))],
        }
    }
}

fn gptq() -> Base {
    let config = json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"});
    let arrays: [(&str, DType, &[usize]); 4] =
        [("m.qweight", I32, &[8, 8]), ("m.qzeros", I32, &[2, 1]), ("m.scales", F16, &[2, 8]), ("m.g_idx", I32, &[64])];
    Base::new(config, &arrays)
}

fn awq() -> Base {
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"});
    Base::new(config, &[("m.qweight", I32, &[64, 1]), ("m.qzeros", I32, &[2, 1]), ("m.scales", F16, &[2, 8])])
}

fn fp8() -> Base {
    let config = json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    Base::new(config, &[("m.weight", F8E4M3, &[8, 160]), ("m.weight_scale_inv", F32, &[1, 2])])
}

fn compressed() -> Base {
    let weights = json!({"num_bits": 4, "type": "int", "group_size": 32});
    let config = json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                        "config_groups": {"group_0": {"weights": weights}}});
    let arrays: [(&str, DType, &[usize]); 3] =
        [("m.weight_packed", I32, &[8, 8]), ("m.weight_scale", BF16, &[8, 2]), ("m.weight_shape", I64, &[2])];
    Base::new(config, &arrays).bytes("m.weight_shape", &[8, 0, 0, 0, 0, 0, 0, 0, 64])
}

fn modelopt() -> Base {
    let config = json!({"quant_method": "modelopt", "quant_algo": "NVFP4"});
    let arrays: [(&str, DType, &[usize]); 3] =
        [("m.weight", U8, &[8, 16]), ("m.weight_scale", F8E4M3, &[8, 2]), ("m.weight_scale_2", F32, &[])];
    Base::new(config, &arrays)
}

fn mxfp4() -> Base {
    let config = json!({"quant_method": "mxfp4"});
    Base::new(config, &[("m_blocks", U8, &[2, 4, 3, 16]), ("m_scales", U8, &[2, 4, 3])])
}

fn hqq() -> Base {
    let config = json!({"quant_method": "hqq"});
    let arrays: [(&str, DType, &[usize]); 9] = [
        ("m.W_q", U8, &[8, 64]),
        ("m.scale", F16, &[16, 1]),
        ("m.zero", F16, &[16, 1]),
        ("m.nbits", I32, &[]),
        ("m.group_size", I32, &[]),
        ("m.axis", I32, &[]),
        ("m.shape", I64, &[2]),
        ("m.packing", U8, &[7]),
        ("m.view_as_float", U8, &[]),
    ];
    let base = Base::new(config, &arrays).with("m.quant_scale", U8, &[]).with("m.quant_zero", U8, &[]);
    let base = base.bytes("m.nbits", &[4]).bytes("m.group_size", &[64]).bytes("m.axis", &[1]);
    base.bytes("m.shape", &[8, 0, 0, 0, 0, 0, 0, 0, 128]).bytes("m.packing", b"4bit_u8")
}

/// The smallest model whose matrices Quanto packs; one of them is.
fn quanto() -> Base {
    let mut base = Base::new(json!({"quant_method": "quanto"}), &[]);
    for (key, value) in [
        ("hidden_size", 128),
        ("intermediate_size", 128),
        ("num_hidden_layers", 1),
        ("vocab_size", 8),
        ("num_attention_heads", 1),
        ("num_key_value_heads", 1),
        ("max_position_embeddings", 8),
    ] {
        base.config[key] = json!(value);
    }
    base.config["architectures"] = json!(["LlamaForCausalLM"]);
    base.config["model_type"] = json!("llama");
    base.config["rms_norm_eps"] = json!(1e-5);
    let arrays: [(&str, DType, &[usize]); 3] =
        [(DATA, U8, &[64, 128]), (SCALE, BF16, &[128, 1]), (SHIFT, BF16, &[128, 1])];
    base.arrays = zeros(&arrays);
    base
}

const DATA: &str = "model.layers.0.mlp.up_proj.weight._data._data";
const SCALE: &str = "model.layers.0.mlp.up_proj.weight._scale";
const SHIFT: &str = "model.layers.0.mlp.up_proj.weight._shift";

fn of_hqq_and_quanto() -> Vec<Attack> {
    let mut unknown = quanto();
    unknown.config["architectures"] = json!(["NobodyForCausalLM"]);
    unknown.config["model_type"] = json!("nobody");
    let mut wider = quanto();
    wider.config["intermediate_size"] = json!(256);
    vec![
        hqq().without("m.zero").refused("hqq-no-zeros", "a plane is missing", "there is no m.zero"),
        hqq().without("m.nbits").refused("hqq-no-width", "a setting is missing", "there is no m.nbits"),
        hqq().bytes("m.nbits", &[5]).refused("hqq-bits", "a width HQQ does not have", "hqq5-g64"),
        hqq().bytes("m.nbits", &[255; 4]).refused("hqq-bits-negative", "a negative width", "hqq4294967295-g64"),
        hqq().bytes("m.nbits", &[2]).refused("hqq-packing", "words of another width", "expected \"2bit_u8\""),
        hqq().bytes("m.axis", &[0]).refused("hqq-axis", "groups along columns", "m.axis is 0, expected 1"),
        hqq().bytes("m.view_as_float", &[1]).refused("hqq-float", "codes as floats", "m.view_as_float is 1"),
        hqq().bytes("m.quant_scale", &[1]).refused("hqq-scales", "scales in codes", "m.quant_scale is 1"),
        hqq().bytes("m.shape", &[255; 8]).refused("hqq-shape-negative", "less than no rows", "is not that of a matrix"),
        hqq().bytes("m.shape", &[9]).refused("hqq-shape", "a row too many", "expected U8 of shape [9, 64]"),
        hqq().with("m.shape", I64, &[3]).refused("hqq-shape-three", "three dimensions", "is not that of a matrix"),
        hqq().with("m.W_q", U8, &[7, 64]).refused("hqq-codes", "codes of fewer groups", "found U8 of [7, 64]"),
        hqq().with("m.scale", F16, &[15, 1]).refused(
            "hqq-scale-short",
            "a group without scale",
            "found F16 of [15, 1]",
        ),
        hqq().with("m.scale", I16, &[16, 1]).refused("hqq-scale-type", "whole numbers", "expected F16, BF16 or F32"),
        hqq().with("m.zero", F32, &[16, 1]).refused(
            "hqq-zero-type",
            "another type than the scales",
            "found F32 of [16, 1]",
        ),
        hqq().with("m.nbits", I64, &[2]).refused("hqq-width-long", "a setting of 16 bytes", "is not a count"),
        quanto().without(SHIFT).refused(
            "quanto-no-shift",
            "a plane is missing",
            "there is no model.layers.0.mlp.up_proj.weight._shift",
        ),
        quanto().without(DATA).refused(
            "quanto-no-codes",
            "scales of nothing",
            "there is no model.layers.0.mlp.up_proj.weight._data",
        ),
        quanto().with(SCALE, BF16, &[126, 1]).refused(
            "quanto-scale",
            "groups that no width has",
            "in two or four codes a byte",
        ),
        quanto().with(SHIFT, F32, &[128, 1]).refused("quanto-shift-type", "another type", "found F32 of [128, 1]"),
        quanto().with(SCALE, I16, &[128, 1]).refused("quanto-scale-type", "whole numbers", "expected F16, BF16 or F32"),
        quanto().with(DATA, U8, &[64, 100]).refused("quanto-group", "groups of 100", "qint4-g100"),
        unknown.refused("quanto-unknown", "an architecture whose shapes are not known", "stored without its shape"),
        wider.refused("quanto-shape", "config.json says another shape", "expected U8 of shape [128, 128]"),
        quanto().with("model.layers.0.mlp.up_proj.weight._data", I16, &[128, 128]).refused(
            "quanto-type",
            "codes of 16 bits",
            "expected I8 or F8_E4M3",
        ),
    ]
}

fn attacks() -> Vec<Attack> {
    let mut all = of_gptq();
    all.extend(of_hqq_and_quanto());
    all.extend(of_awq());
    all.extend(of_floats());
    all.extend(of_compressed());
    all
}

fn of_gptq() -> Vec<Attack> {
    vec![
        gptq().without("m.scales").refused("gptq-no-scales", "a plane is missing", "there is no m.scales"),
        gptq().without("m.qweight").refused("gptq-no-codes", "scales of nothing", "there is no m.qweight"),
        gptq().without("m.qzeros").refused("gptq-no-zeros", "a plane is missing", "there is no m.qzeros"),
        gptq().with("m.scales", F16, &[2, 7]).refused(
            "gptq-scales-short",
            "a row without scale",
            "found F16 of [2, 7]",
        ),
        gptq().with("m.scales", F16, &[4, 8]).refused(
            "gptq-groups",
            "more groups than columns have",
            "have 2 rows, found 4",
        ),
        gptq().with("m.scales", I32, &[2, 8]).refused(
            "gptq-scales-type",
            "whole numbers as scales",
            "expected F16, BF16 or F32",
        ),
        gptq().with("m.qzeros", I32, &[1, 1]).refused(
            "gptq-zeros-short",
            "a group without zero",
            "found I32 of [1, 1]",
        ),
        gptq().with("m.qzeros", I32, &[2, 0]).refused("gptq-zeros-empty", "no zeros at all", "do not belong together"),
        gptq().with("m.qzeros", I32, &[2, 100]).refused(
            "gptq-zeros-wide",
            "zeros of 400 bits",
            "do not belong together",
        ),
        gptq().with("m.qweight", I32, &[8]).refused("gptq-codes-vector", "codes in one dimension", "expected a matrix"),
        gptq().with("m.qweight", F32, &[8, 8]).refused("gptq-codes-type", "floats as codes", "found F32 of [8, 8]"),
        gptq().with("m.qweight", I32, &[0, 8]).refused("gptq-codes-empty", "no columns", "do not belong together"),
        gptq().with("m.g_idx", I32, &[63]).refused("gptq-order-short", "a column without group", "found I32 of [63]"),
        gptq().with("m.g_idx", I64, &[64]).refused("gptq-order-type", "another width", "found I64 of [64]"),
        gptq().with("m.weight", F16, &[8, 64]).refused("gptq-twice", "plain and packed", "is stored plain and packed"),
        gptq().set("bits", json!(8)).refused("gptq-bits", "config.json says another width", "config.json says 8 bits"),
        gptq().set("bits", json!(-4)).refused("gptq-bits-negative", "a negative width", "config.json says 0 bits"),
        gptq().set("group_size", json!(64)).refused(
            "gptq-group",
            "config.json says other groups",
            "have 1 rows, found 2",
        ),
        gptq().set("group_size", json!(1)).refused("gptq-group-one", "groups of one", "have 64 rows, found 2"),
        gptq().set("checkpoint_format", json!("marlin")).refused("gptq-marlin", "a kernel's own order", "\"marlin\""),
        gptq().set("is_marlin_format", json!(true)).refused("gptq-is-marlin", "the older way to say so", "\"marlin\""),
        gptq().set("pack_dtype", json!("int64")).refused("gptq-words", "words of 64 bits", "pack_dtype \"int64\""),
    ]
}

fn of_awq() -> Vec<Attack> {
    vec![
        awq().without("m.qzeros").refused("awq-no-zeros", "a plane is missing", "there is no m.qzeros"),
        awq().set("version", json!("gemv")).refused("awq-gemv", "another order of codes", "\"gemv\" is not supported"),
        awq().set("bits", json!(3)).refused("awq-bits", "a width AWQ does not have", "awq3-g32"),
        awq().with("m.scales", F16, &[2, 16]).refused("awq-rows", "more scales than rows", "scales have 16 rows"),
        awq().with("m.qzeros", I32, &[1, 1]).refused("awq-zeros-short", "a group without zero", "found I32 of [1, 1]"),
        awq().with("m.qweight", I32, &[33, 1]).refused("awq-columns", "half a word", "not whole blocks of 32"),
    ]
}

fn of_floats() -> Vec<Attack> {
    vec![
        fp8().without("m.weight_scale_inv").refused(
            "fp8-no-scales",
            "a plane is missing",
            "there is no m.weight_scale_inv",
        ),
        fp8().without("m.weight").refused("fp8-no-codes", "scales of nothing", "there is no m.weight"),
        fp8().with("m.weight_scale_inv", F32, &[2, 2]).refused(
            "fp8-scales",
            "one block too many",
            "shape [2, 2] is not",
        ),
        fp8().with("m.weight_scale_inv", I32, &[1, 2]).refused("fp8-scales-type", "whole numbers", "scales of I32"),
        fp8().with("m.weight", F8E4M3, &[160]).refused("fp8-vector", "a vector with blocks", "should be a matrix"),
        fp8().set("weight_block_size", json!([64, 64])).refused(
            "fp8-block",
            "blocks of 64",
            "weight_block_size is [64,64]",
        ),
        fp8().set("fmt", json!("e5m2")).refused("fp8-format", "another float", "fmt is \"e5m2\""),
        modelopt().without("m.weight_scale").refused(
            "modelopt-no-scales",
            "a plane is missing",
            "there is no m.weight_scale",
        ),
        modelopt().without("m.weight_scale_2").refused(
            "modelopt-no-scale",
            "a plane is missing",
            "there is no m.weight_scale_2",
        ),
        modelopt().with("m.weight", I8, &[8, 16]).refused("modelopt-type", "bytes with a sign", "found I8 of [8, 16]"),
        modelopt().with("m.weight_scale", F8E4M3, &[8, 3]).refused(
            "modelopt-scales",
            "a block too many",
            "found F8_E4M3 of [8, 3]",
        ),
        modelopt().with("m.weight_scale_2", F32, &[2]).refused(
            "modelopt-scale",
            "two scales of all",
            "found F32 of [2]",
        ),
        modelopt().set("quant_algo", json!("W4A8_AWQ")).refused(
            "modelopt-kind",
            "another algorithm",
            "quant_algo is \"W4A8_AWQ\"",
        ),
        modelopt().with("m.pre_quant_scale", F16, &[32]).refused(
            "modelopt-input",
            "its input is scaled",
            "scales its input",
        ),
        mxfp4().without("m_scales").refused("mxfp4-no-scales", "a plane is missing", "there is no m_scales"),
        mxfp4().without("m_blocks").refused("mxfp4-no-codes", "scales of nothing", "there is no m_blocks"),
        mxfp4().with("m_scales", U8, &[2, 4, 2]).refused(
            "mxfp4-scales",
            "a block without scale",
            "found U8 of [2, 4, 2]",
        ),
        mxfp4().with("m_blocks", U8, &[2, 4, 3, 8]).refused(
            "mxfp4-block",
            "half blocks",
            "expected shape [.., blocks, 16]",
        ),
    ]
}

fn of_compressed() -> Vec<Attack> {
    let sparse = json!({"format": "sparse-24-bitmask"});
    vec![
        compressed().without("m.weight_scale").refused(
            "ct-no-scales",
            "a plane is missing",
            "there is no m.weight_scale",
        ),
        compressed().without("m.weight_shape").refused("ct-no-shape", "no shape", "there is no m.weight_shape"),
        compressed().without("m.weight_packed").refused("ct-no-codes", "scales of nothing", "there is no m.weight"),
        compressed().bytes("m.weight_shape", &[9]).refused(
            "ct-shape",
            "a row too many",
            "does not hold a matrix of shape [9, 64]",
        ),
        compressed().bytes("m.weight_shape", &[255; 8]).refused(
            "ct-shape-negative",
            "less than no rows",
            "a dimension is negative",
        ),
        compressed().bytes("m.weight_shape", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64]).refused(
            "ct-shape-huge",
            "columns that no file holds",
            "does not hold a matrix",
        ),
        compressed().with("m.weight_shape", I32, &[2]).refused(
            "ct-shape-type",
            "another width",
            "expected I64 of shape [2]",
        ),
        compressed().with("m.weight_scale", BF16, &[8, 7]).refused(
            "ct-groups",
            "seven groups",
            "64 columns in 7 groups",
        ),
        compressed().with("m.weight_scale", BF16, &[9, 2]).refused(
            "ct-scales",
            "a row too many",
            "found BF16 of [9, 2]",
        ),
        compressed().with("m.weight_zero_point", I32, &[2, 2]).refused(
            "ct-zeros",
            "zeros of 16 rows",
            "found I32 of [2, 2]",
        ),
        compressed().with("m.weight_g_idx", I32, &[63]).refused(
            "ct-order",
            "a column without group",
            "found I32 of [63]",
        ),
        compressed().set("format", json!("marlin-24")).refused(
            "ct-marlin",
            "a kernel's own order",
            "format \"marlin-24\"",
        ),
        compressed().set("sparsity_config", sparse).refused(
            "ct-sparse",
            "weights left out",
            "format \"sparse-24-bitmask\"",
        ),
        compressed().set("config_groups", json!({"group_0": {"weights": {"num_bits": 8, "type": "int"}}})).refused(
            "ct-bits",
            "config.json says another width",
            "config.json says 8-bit int",
        ),
        compressed()
            .set("config_groups", json!({"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}))
            .refused("ct-group", "config.json says other groups", "config.json says 4-bit int in groups of 128"),
    ]
}

/// What is changed in each attack is all that is wrong with it.
#[test]
fn unchanged_checkpoints_are_read() {
    for base in [gptq(), awq(), fp8(), compressed(), modelopt(), mxfp4(), hqq(), quanto()] {
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(folder.path(), &base.config, &base.arrays);
        let source = windlass_formats::open(folder.path(), &windlass_tensor::Limits::default()).unwrap();
        assert_eq!(source.tensors().len(), 1, "{}", base.config);
        let values = checkpoint::decode(&source, &source.tensors()[0]);
        assert!(values.iter().all(|v| *v == 0.0 || v.is_nan()), "{}", base.config);
    }
}

#[test]
fn committed_files_are_those_that_are_built_here() {
    hostile::assert_committed("libraries", &attacks());
}

#[test]
fn every_attack_is_refused_for_its_own_reason() {
    hostile::assert_refused("libraries", &attacks());
}

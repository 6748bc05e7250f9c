//! Hostile MLX folders: each is refused with a message that says why.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/hostile.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod hostile;

use hostile::Attack;

/// An array: name, type, shape.
type Array<'a> = (&'a str, &'a str, &'a [u64]);

/// A safetensors file of these arrays.
fn weights(arrays: &[Array]) -> Vec<u8> {
    let (mut end, mut members) = (0, vec!["\"__metadata__\":{\"format\":\"mlx\"}".to_string()]);
    for (name, dtype, shape) in arrays {
        let size = match *dtype {
            "U8" => 1,
            "F16" | "BF16" => 2,
            _ => 4,
        };
        let bytes = shape.iter().product::<u64>() * size;
        members.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{end},{}]}}",
            end + bytes
        ));
        end += bytes;
    }
    let header = format!("{{{}}}", members.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + end as usize, 0);
    file
}

/// A folder with this quantization and these arrays.
fn folder(
    name: &'static str,
    idea: &'static str,
    stopped_by: &'static str,
    quantization: &str,
    arrays: &[Array],
) -> Attack {
    let config = format!("{{\"model_type\":\"llama\",\"quantization\":{quantization}}}").into_bytes();
    Attack { name, idea, stopped_by, files: vec![("config.json", config), ("model.safetensors", weights(arrays))] }
}

const USUAL: &str = r#"{"group_size":64,"bits":4}"#;

/// One row of 64 values in 4 bits.
const WEIGHT: Array = ("x.weight", "U32", &[1, 8]);
const SCALES: Array = ("x.scales", "F16", &[1, 1]);
const BIASES: Array = ("x.biases", "F16", &[1, 1]);

fn attacks() -> Vec<Attack> {
    let mut all = settings();
    all.extend(planes());
    all.extend(configs());
    all
}

fn settings() -> Vec<Attack> {
    let with = |name, idea, stopped_by, quantization: &str| {
        folder(name, idea, stopped_by, quantization, &[WEIGHT, SCALES, BIASES])
    };
    let unknown = "is not known";
    vec![
        with("bits-0", "no bits: a division by zero", unknown, r#"{"group_size":64,"bits":0}"#),
        with("bits-7", "a width that MLX does not have", unknown, r#"{"group_size":64,"bits":7}"#),
        with("bits-huge", "2^64-1 bits", unknown, r#"{"group_size":64,"bits":18446744073709551615}"#),
        with("bits-negative", "negative bits", "invalid value", r#"{"group_size":64,"bits":-4}"#),
        with("bits-float", "4.5 bits", "invalid type", r#"{"group_size":64,"bits":4.5}"#),
        with("bits-text", "bits that are text", "invalid type", r#"{"group_size":64,"bits":"4"}"#),
        with("bits-twice", "two widths: which one holds?", "comes twice", r#"{"group_size":64,"bits":4,"bits":8}"#),
        with("group-0", "no group: a division by zero", unknown, r#"{"group_size":0,"bits":4}"#),
        with("group-48", "a group that MLX does not have", unknown, r#"{"group_size":48,"bits":4}"#),
        with("mode-unknown", "a mode nobody knows", unknown, r#"{"group_size":64,"bits":4,"mode":"int4"}"#),
        with("mode-number", "a mode that is a number", "invalid type", r#"{"group_size":64,"bits":4,"mode":4}"#),
        with("mode-mxfp4-64", "mxfp4 in groups of 64", unknown, r#"{"group_size":64,"bits":4,"mode":"mxfp4"}"#),
        with(
            "layer-bits-1",
            "a bad layer hidden among good ones",
            unknown,
            r#"{"group_size":64,"bits":4,"x":{"bits":1}}"#,
        ),
        with(
            "layer-twice",
            "two settings for a layer",
            "comes twice",
            r#"{"group_size":64,"bits":4,"x":false,"x":true}"#,
        ),
        with(
            "layer-false",
            "a packed layer that is said not to be",
            "says that it is not packed",
            r#"{"group_size":64,"bits":4,"x":false}"#,
        ),
        with(
            "layer-global-scale",
            "a scale we do not apply",
            "global scale",
            r#"{"group_size":64,"bits":4,"x":{"global_scale":true}}"#,
        ),
        with(
            "layer-wrong-bits",
            "a layer with another width than its arrays",
            "not whole groups",
            r#"{"group_size":64,"bits":4,"x":{"bits":8,"group_size":64}}"#,
        ),
        with("no-quantization", "packed weights that nothing explains", "has no quantization", "null"),
    ]
}

fn planes() -> Vec<Attack> {
    let with = |name, idea, stopped_by, arrays: &[Array]| folder(name, idea, stopped_by, USUAL, arrays);
    let shape = "has shape";
    vec![
        with("scales-missing", "codes without scales", "there is no x.scales", &[WEIGHT, BIASES]),
        with("biases-missing", "codes without biases", "there is no x.biases", &[WEIGHT, SCALES]),
        with("weight-missing", "scales without codes", "no x.weight", &[SCALES, BIASES]),
        with(
            "weight-float",
            "codes that are floats",
            "x.weight is F32",
            &[("x.weight", "F32", &[1, 8]), SCALES, BIASES],
        ),
        with("weight-bytes", "codes in bytes", "x.weight is U8", &[("x.weight", "U8", &[1, 32]), SCALES, BIASES]),
        with(
            "weight-vector",
            "codes without rows",
            "not whole groups",
            &[("x.weight", "U32", &[8]), ("x.scales", "F16", &[1]), ("x.biases", "F16", &[1])],
        ),
        with("weight-scalar", "a single code word", "not whole groups", &[("x.weight", "U32", &[]), SCALES, BIASES]),
        with(
            "weight-no-columns",
            "rows of nothing",
            "not whole groups",
            &[("x.weight", "U32", &[1, 0]), ("x.scales", "F16", &[1, 0]), ("x.biases", "F16", &[1, 0])],
        ),
        with("weight-half-group", "half a group", "not whole groups", &[("x.weight", "U32", &[1, 4]), SCALES, BIASES]),
        with(
            "weight-huge",
            "2^61 words in no rows: the columns overflow",
            "not whole groups",
            &[("x.weight", "U32", &[0, 1 << 61]), SCALES, BIASES],
        ),
        with(
            "scales-short",
            "fewer scales than groups: reads past their end",
            shape,
            &[("x.weight", "U32", &[1, 16]), SCALES, BIASES],
        ),
        with("scales-long", "more scales than groups", shape, &[WEIGHT, ("x.scales", "F16", &[1, 2]), BIASES]),
        with("scales-rows", "another number of rows", shape, &[WEIGHT, ("x.scales", "F16", &[2, 1]), BIASES]),
        with(
            "scales-transposed",
            "the same number of scales, another shape",
            shape,
            &[("x.weight", "U32", &[2, 16]), ("x.scales", "F16", &[4, 1]), ("x.biases", "F16", &[2, 2])],
        ),
        with("scales-flat", "scales without rows", shape, &[WEIGHT, ("x.scales", "F16", &[1]), BIASES]),
        with(
            "scales-integer",
            "scales that are integers",
            "its scales are I32",
            &[WEIGHT, ("x.scales", "I32", &[1, 1]), BIASES],
        ),
        with(
            "biases-other-type",
            "scales and biases of different types",
            "x.biases is F32",
            &[WEIGHT, SCALES, ("x.biases", "F32", &[1, 1])],
        ),
        with(
            "global-scale",
            "a scale we do not apply",
            "has no global_scale",
            &[WEIGHT, SCALES, BIASES, ("x.global_scale", "F32", &[1])],
        ),
        with(
            "experts-scales",
            "scales for fewer experts than codes",
            shape,
            &[("x.weight", "U32", &[3, 2, 8]), ("x.scales", "F16", &[2, 2, 1]), ("x.biases", "F16", &[3, 2, 1])],
        ),
        folder(
            "mxfp4-biases",
            "biases where the mode has none",
            "has no biases",
            r#"{"group_size":32,"bits":4,"mode":"mxfp4"}"#,
            &[("x.weight", "U32", &[1, 4]), ("x.scales", "U8", &[1, 1]), BIASES],
        ),
        folder(
            "mxfp4-float-scales",
            "scales of another type",
            "x.scales is F16",
            r#"{"group_size":32,"bits":4,"mode":"mxfp4"}"#,
            &[("x.weight", "U32", &[1, 4]), SCALES],
        ),
        folder(
            "plain-layer-announced",
            "a layer announced as packed that is not",
            "there is no x.scales",
            r#"{"group_size":64,"bits":4,"x":{"bits":4,"group_size":64}}"#,
            &[("x.weight", "F16", &[1, 64])],
        ),
    ]
}

fn configs() -> Vec<Attack> {
    let with = |name, idea, stopped_by, config: &str| {
        let arrays = weights(&[WEIGHT, SCALES, BIASES]);
        let files = vec![("config.json", config.as_bytes().to_vec()), ("model.safetensors", arrays)];
        Attack { name, idea, stopped_by, files }
    };
    vec![
        with("config-empty", "a config.json of no bytes", "expected '{'", ""),
        with("config-cut", "a config.json that ends early", "expected", "{\"quantization\":{\"bits\":4"),
        with("config-list", "a config.json that is a list", "expected '{'", "[]"),
        with(
            "config-deep",
            "5000 objects within each other: recursion",
            "nested deeper than 64",
            &"{\"a\":".repeat(5000),
        ),
        with("config-open-text", "a text that does not end", "does not end", "{\"quantization\":\"\\"),
        with(
            "config-quantization-twice",
            "two objects: which one holds?",
            "comes twice",
            r#"{"quantization":{"bits":4,"group_size":64},"quantization":{"bits":8,"group_size":32}}"#,
        ),
    ]
}

#[test]
fn the_committed_files_are_those_of_the_list() {
    hostile::assert_committed("mlx", &attacks());
}

#[test]
fn every_attack_is_refused_with_its_reason() {
    hostile::assert_refused("mlx", &attacks());
}

#[test]
fn a_config_cut_or_changed_anywhere_is_no_panic() {
    let config = br#"{"quantization": {"group_size": 64, "bits": 4, "mode": "affine", "x": {"bits": 4}}}"#;
    let limits = windlass_tensor::Limits::default();
    for length in 0..config.len() {
        assert!(windlass_formats::mlx::parse_config(&config[..length], &limits).is_err(), "{length}");
    }
    for (i, byte) in (0..config.len()).flat_map(|i| (0..=255).map(move |byte| (i, byte))) {
        let mut changed = config.to_vec();
        changed[i] = byte;
        if let Ok(Some(found)) = windlass_formats::mlx::parse_config(&changed, &limits) {
            assert!(found.default.scheme().is_ok());
        }
    }
}

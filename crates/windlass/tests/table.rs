//! The table of families and containers that `windlass schemes` prints: what it promises is done, what it denies is refused.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use support::Bench;
use windlass::convert::Options;
use windlass::formats::files::read_small;
use windlass::registries::families;
use windlass::tensor::Limits;
use windlass::{Code, diff, verify};

/// Schemes that stand for a family that is written.
fn written(family: &str) -> &'static [&'static str] {
    match family {
        "ggml" => &["q8_0", "q4_k", "mxfp4"],
        "mlx" => &["mlx4-g64", "mlx3-g32", "mlx-mxfp4"],
        "bitsandbytes" => &["nf4", "fp4-dq", "int8"],
        "hqq" => &["hqq4-g64", "hqq1-g16"],
        "quanto" => &["qint8", "qint4", "qfloat8"],
        _ => &[],
    }
}

/// Checkpoints that stand for a family that is read, with a scheme of it.
fn read(family: &str) -> &'static [(&'static str, &'static str)] {
    match family {
        "mlx" => &[("gptoss/packed", "mlx-mxfp4")],
        "gptq" => &[("libraries/gptq4-sym-g32", "gptq4-g32")],
        "awq" => &[("libraries/awq4-g32", "awq4-g32")],
        "compressed-tensors" => &[("libraries/ct4-g32", "ct4-g32"), ("libraries/ct-nvfp4", "nvfp4-ct")],
        "fp8" => &[("libraries/fp8", "fp8-b128")],
        "modelopt" => &[("libraries/modelopt-nvfp4", "nvfp4-modelopt")],
        _ => &[],
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn to(container: &str, scheme: Option<&str>) -> Options {
    Options { to: Some(container.into()), scheme: scheme.map(String::from), pure: false, ..Options::default() }
}

fn target(container: &str, label: &str) -> String {
    let ending = if container == "gguf" || container == "npz" { format!(".{container}") } else { String::new() };
    format!("{label}-{container}{ending}")
}

/// Verified with all its values, and unpacked to floats in a folder and in GGUF, which give the same values.
fn is_whole(bench: &Bench, name: &str, scheme: &str) {
    let model = bench.open(name);
    let packed = model.source.tensors().iter().filter(|t| t.element().name() == scheme).count();
    assert!(packed > 3, "{name}: {packed} tensors are {scheme}");
    let options =
        verify::Options { deep: true, limits: Limits::default(), memory_limit: 1 << 28, progress: &|_, _| {} };
    let problems = verify::verify(&model, &options).unwrap().problems;
    assert!(problems.is_empty(), "{name}: {problems:?}");
    for container in ["safetensors", "gguf"] {
        let back = target(container, &format!("{name}-back"));
        bench.convert_with(name, &back, Options { overwrite: true, ..to(container, Some("f32")) }).unwrap();
        let difference = diff::diff(&model, &bench.open(&back), 1 << 28, &|_, _| {}).unwrap();
        assert!(!difference.tensors.is_empty());
        let different: Vec<_> = difference.tensors.iter().filter(|t| !t.identical).map(|t| &t.name).collect();
        assert!(different.is_empty(), "{name} in {container}: {different:?}");
    }
}

/// The arrays of a safetensors checkpoint in a PyTorch file, described as they were.
fn as_pytorch(bench: &Bench, from: &Path, name: &str) {
    let mut arrays: Vec<(String, windlass::tensor::DType, Vec<usize>, Vec<u8>)> = Vec::new();
    let bytes = read_small(&from.join("model.safetensors"), 1 << 30).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let about: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    for (name, tensor) in about.iter().filter(|(name, _)| *name != "__metadata__") {
        let numbers = |key: &str| -> Vec<usize> {
            tensor[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let range = numbers("data_offsets");
        let dtype = windlass::tensor::DType::built_in().find(|d| tensor["dtype"] == d.name()).unwrap();
        arrays.push((name.clone(), dtype, numbers("shape"), bytes[8 + header..][range[0]..range[1]].to_vec()));
    }
    support::write_pytorch(&bench.path(name), &arrays);
    for file in std::fs::read_dir(from)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
    {
        std::fs::copy(&file, bench.path(name).join(file.file_name().unwrap())).unwrap();
    }
}

/// Refused as a wrong use, with what can be written instead.
fn is_refused(bench: &Bench, container: &str, scheme: &str) {
    let error = bench.convert_with("model", "refused", to(container, Some(scheme))).unwrap_err();
    assert_eq!(error.code, Code::Usage, "{scheme} in {container}: {error}");
    let help = error.help.unwrap_or_default();
    assert!(help.contains("f32") && help.contains(','), "{scheme} in {container}: {}: {help}", error.message);
    assert!(!bench.path("refused").exists());
}

#[test]
fn what_is_promised_is_done_and_what_is_denied_is_refused() {
    let bench = Bench::new();
    let (mut done, mut refused) = (0, 0);
    for row in families() {
        let schemes = written(&row.name);
        assert_eq!(row.written > 0 && row.name != "fp8", !schemes.is_empty(), "{}", row.name);
        for (container, cell) in &row.containers {
            if *cell == Some("write") {
                for scheme in schemes {
                    let name = target(container, scheme);
                    bench.convert_with("model", &name, to(container, Some(scheme))).unwrap();
                    is_whole(&bench, &name, scheme);
                    done += 1;
                }
                continue;
            }
            for scheme in schemes.iter().chain(read(&row.name).iter().map(|(_, scheme)| scheme)) {
                is_refused(&bench, container, scheme);
                refused += 1;
            }
            if cell.is_none() {
                continue;
            }
            // Read: what the library saved, or what was written for it.
            for (folder, scheme) in read(&row.name) {
                let name = if *container == "pytorch" {
                    let name = format!("{}-pt", folder.replace('/', "-"));
                    as_pytorch(&bench, &golden(folder), &name);
                    name
                } else {
                    golden(folder).to_str().unwrap().to_string()
                };
                is_whole(&bench, &name, scheme);
                done += 1;
            }
            for scheme in schemes.iter().filter(|_| *container == "pytorch" && row.name != "mlx") {
                let name = format!("{scheme}-pt");
                as_pytorch(&bench, &bench.path(&target("safetensors", scheme)), &name);
                is_whole(&bench, &name, scheme);
                done += 1;
            }
        }
    }
    assert!(done > 25 && refused > 40, "{done} done, {refused} refused");
}

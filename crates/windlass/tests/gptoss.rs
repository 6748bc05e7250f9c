//! gpt-oss: experts in MXFP4 as they are published, plain ones as transformers stores them, GGUF and MLX.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Bench, files, values};
use windlass::convert::Options;
use windlass::diff;

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gptoss").join(name).to_str().unwrap().into()
}

fn same(bench: &Bench, a: &str, b: &str) -> usize {
    let difference = diff::diff(&bench.open(a), &bench.open(b), 1 << 28, &|_, _| {}).unwrap();
    assert!(difference.only_in_a.is_empty() && difference.only_in_b.is_empty(), "{a} {b}: {difference:?}");
    assert!(difference.unequal_shapes.is_empty(), "{a} {b}: {difference:?}");
    let different: Vec<&str> = difference.tensors.iter().filter(|t| !t.identical).map(|t| t.name.as_str()).collect();
    assert!(different.is_empty(), "{a} {b}: {different:?}");
    difference.tensors.len()
}

/// The packed checkpoint gives what transformers makes of it, whichever way it goes.
#[test]
fn experts_are_what_transformers_unpacks() {
    let bench = Bench::new();
    let (packed, plain) = (golden("packed"), golden("plain"));
    let report = bench.convert(&packed, "m.gguf", None).unwrap();
    assert_eq!((report.requantized, report.repacked, report.schemes["mxfp4"]), (0, 6, 6));
    assert!(same(&bench, &plain, "m.gguf") > 60);
    bench.convert_with(&packed, "mlx", Options { to: Some("mlx".into()), ..Options::default() }).unwrap();
    bench.convert("mlx", "m2.gguf", None).unwrap();
    same(&bench, &plain, "m2.gguf");
    for (from, to) in [(packed.as_str(), "unpacked"), ("m.gguf", "back"), (&plain, "copy")] {
        bench.convert(from, to, None).unwrap();
        let (ours, theirs) = (bench.open(to), bench.open(&plain));
        for entry in theirs.source.tensors() {
            let name = entry.name();
            assert_eq!(ours.source.tensor(name).unwrap().element(), entry.element(), "{to} {name}");
            assert_eq!(values(&ours, name), values(&theirs, name), "{to} {name}");
        }
        assert_eq!(ours.source.tensors().len(), theirs.source.tensors().len());
        let config = String::from_utf8(files(&bench.path(to)).remove("config.json").unwrap()).unwrap();
        assert!(!config.contains("quantization_config"), "{to}");
    }
}

/// Plain experts are turned on the way to GGUF and back, the bytes come back, and threads and memory change nothing.
#[test]
fn plain_experts_go_there_and_back() {
    let bench = Bench::new();
    let plain = golden("plain");
    for (scheme, name) in [(None, "a.gguf"), (Some("f32"), "b.gguf")] {
        bench.convert(&plain, name, scheme).unwrap();
        same(&bench, &plain, name);
        let back = format!("{name}-back");
        bench.convert(name, &back, None).unwrap();
        assert_eq!(files(Path::new(&plain)), files(&bench.path(&back)));
    }
    bench.convert(&plain, "q.gguf", Some("q8_0")).unwrap();
    let difference = diff::diff(&bench.open(&plain), &bench.open("q.gguf"), 1 << 28, &|_, _| {}).unwrap();
    assert!(difference.tensors.iter().all(|t| t.cosine > 0.9999), "{difference:?}");
}

/// Double quantization needs a pass over all values first, turned ones too.
#[test]
fn turned_experts_can_be_packed_anew() {
    let bench = Bench::new();
    bench.convert(&golden("packed"), "m.gguf", None).unwrap();
    bench.convert("m.gguf", "nf4", Some("nf4-dq")).unwrap();
    let difference = diff::diff(&bench.open("m.gguf"), &bench.open("nf4"), 1 << 28, &|_, _| {}).unwrap();
    assert!(difference.tensors.iter().all(|t| t.cosine > 0.98), "{difference:?}");
}

#[test]
fn a_checkpoint_that_cannot_be_run_says_so() {
    let bench = Bench::new();
    bench.convert(&golden("packed"), "m.gguf", None).unwrap();
    let error = windlass::load::load(&bench.open("m.gguf"), &windlass::load::Options::default()).err().unwrap();
    assert!(error.to_string().contains("no graph"), "{error}");
}

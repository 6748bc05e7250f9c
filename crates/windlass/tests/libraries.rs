//! Conversions to and from checkpoints of the libraries that quantize.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use windlass::convert::{Conversion, Options, Report, Watch};
use windlass::tensor::Limits;
use windlass::{Code, Error, Model, diff, verify};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        windlass::quickstart::make(&folder.path().join("model")).unwrap();
        Bench { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn convert(&self, from: &str, to: &str, scheme: Option<&str>) -> Result<Report, Error> {
        self.convert_with(from, to, Options { scheme: scheme.map(String::from), ..Options::default() })
    }

    fn convert_with(&self, from: &str, to: &str, options: Options) -> Result<Report, Error> {
        let stop = AtomicBool::new(false);
        let watch = Watch { stop: &stop, progress: &|_, _| {} };
        Conversion::plan(self.path(from), &self.path(to), options)?.run(&watch)
    }

    fn open(&self, name: &str) -> Model {
        Model::open(self.path(name), &Limits::default()).unwrap()
    }

    fn config(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(name).join("config.json")).unwrap()).unwrap()
    }

    fn problems(&self, name: &str) -> Vec<verify::Finding> {
        let options =
            verify::Options { deep: true, limits: Limits::default(), memory_limit: 1 << 28, progress: &|_, _| {} };
        verify::verify(&self.open(name), &options).unwrap().problems
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

/// Bytes do not depend on threads; a copy is equal; what is unpacked has the values of the packed model, also by way of
/// GGUF, and nothing in its folder says any more that it was packed.
#[test]
fn every_family_that_is_written_is_read_again() {
    let bench = Bench::new();
    for scheme in ["nf4", "nf4-dq", "int8", "hqq4-g64", "hqq3-g32", "hqq2-g16", "qint8", "qint4", "qint2", "qfloat8"] {
        bench.convert("model", scheme, Some(scheme)).unwrap();
        let packed = bench.open(scheme);
        let count = packed.source.tensors().iter().filter(|t| t.element().name() == scheme).count();
        assert!(count > 10, "{scheme}: {count}");
        assert!(bench.problems(scheme).is_empty(), "{scheme}");
        let one = Options { scheme: Some(scheme.into()), threads: 1, ..Options::default() };
        let (single, copy) = (format!("{scheme}-one"), format!("{scheme}-copy"));
        bench.convert_with("model", &single, one).unwrap();
        assert_eq!(files(&bench.path(scheme)), files(&bench.path(&single)), "{scheme}");
        let report = bench.convert(scheme, &copy, None).unwrap();
        assert_eq!(report.requantized, 0, "{scheme}");
        assert_eq!(files(&bench.path(scheme)), files(&bench.path(&copy)), "{scheme}");
        let (plain, gguf) = (format!("{scheme}-f32"), format!("{scheme}.gguf"));
        bench.convert(scheme, &plain, Some("f32")).unwrap();
        bench.convert(scheme, &gguf, Some("f32")).unwrap();
        for other in [&plain, &gguf] {
            let difference = diff::diff(&packed, &bench.open(other), 1 << 28, &|_, _| {}).unwrap();
            assert!(difference.tensors.iter().all(|t| t.identical), "{scheme} {other}");
            assert!(difference.tensors.len() > 10 && difference.only_in_a.is_empty(), "{scheme} {other}");
        }
        assert!(bench.config(&plain).get("quantization_config").is_none(), "{scheme}");
        let kept: Vec<String> = files(&bench.path(&plain)).into_keys().collect();
        assert_eq!(kept, files(&bench.path("model")).into_keys().collect::<Vec<_>>(), "{scheme}");
    }
}

/// One matrix of GPTQ with 4 bits in groups of 32, and nothing else; zeros as they are stored, one too small.
fn gptq(bench: &Bench, name: &str, zeros: i32) {
    let (rows, columns) = (64, 96);
    let codes: Vec<i32> = (0..columns / 8 * rows).map(|i| (i as i32).wrapping_mul(0x9e37_79b9u32 as i32)).collect();
    let halves = |i: usize| 0x2000u16 + (i as u16 * 37) % 1024;
    let arrays: [(&str, &str, [usize; 2], Vec<u8>); 3] = [
        ("m.qweight", "I32", [columns / 8, rows], codes.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("m.qzeros", "I32", [columns / 32, rows / 8], zeros.to_le_bytes().repeat(columns / 32 * rows / 8)),
        (
            "m.scales",
            "F16",
            [columns / 32, rows],
            (0..columns / 32 * rows).flat_map(|i| halves(i).to_le_bytes()).collect(),
        ),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in arrays {
        let begin = data.len();
        data.extend(bytes);
        let about = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.into(), about);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    let folder = bench.path(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    let quantization = serde_json::json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    let config = serde_json::json!({"model_type": "unheard-of", "quantization_config": quantization});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn codes_of_gptq_move_to_mlx_exactly_or_with_a_stated_error() {
    let bench = Bench::new();
    gptq(&bench, "symmetric", 0x7777_7777);
    gptq(&bench, "skewed", 0x6666_6666);
    let options = || Options { to: Some("mlx".into()), scheme: Some("mlx4-g32".into()), ..Options::default() };
    let report = bench.convert_with("symmetric", "a", options()).unwrap();
    assert_eq!((report.repacked, report.requantized, report.max_relative_error), (1, 0, 0.0));
    let report = bench.convert_with("skewed", "b", options()).unwrap();
    assert_eq!((report.repacked, report.requantized), (0, 1));
    let error = report.max_relative_error;
    assert!(error > 0.0 && error < 5e-4, "{error}");
    // Without a scheme, values stay what they are: the products, in the type of the scales.
    let report = bench.convert_with("skewed", "c", Options { to: Some("mlx".into()), ..Options::default() }).unwrap();
    assert_eq!(report.schemes.keys().collect::<Vec<_>>(), ["f16"]);
    let difference = diff::diff(&bench.open("skewed"), &bench.open("c"), 1 << 28, &|_, _| {}).unwrap();
    assert!(difference.tensors[0].max_abs < 1e-4 && difference.tensors[0].sqnr_db.unwrap() > 60.0);
}

#[test]
fn what_is_only_read_is_not_written() {
    let bench = Bench::new();
    for scheme in ["gptq4-g128", "awq4-g64", "ct4-g128", "nvfp4-modelopt"] {
        let error = bench.convert("model", "out", Some(scheme)).unwrap_err();
        assert_eq!(error.code, Code::Usage, "{scheme}: {error}");
        assert!(error.message.contains("read but not written"), "{scheme}: {error}");
    }
    for (scheme, to, can) in
        [("nf4", "gguf", "q4_k"), ("hqq4-g64", "mlx", "mlx4-g64"), ("q4_k", "safetensors", "hqq4-g64")]
    {
        let options = Options { to: Some(to.into()), scheme: Some(scheme.into()), ..Options::default() };
        let error = bench.convert_with("model", "out", options).unwrap_err();
        assert_eq!(error.code, Code::Usage, "{scheme}: {error}");
        assert!(error.help.as_ref().is_some_and(|help| help.contains(can)), "{scheme}: {error} {:?}", error.help);
    }
    // Quanto chooses the size of groups itself.
    let error = bench.convert("model", "out", Some("qint4-g32")).unwrap_err();
    assert!(error.message.contains("Quanto expects groups of"), "{error}");
    assert!(!bench.path("out").exists());
}

#[test]
fn a_library_that_is_not_known_is_listed_and_not_taken_for_weights() {
    let bench = Bench::new();
    let mut config = bench.config("model");
    config["quantization_config"] = serde_json::json!({"quant_method": "spqr", "bits": 3});
    std::fs::write(bench.path("model").join("config.json"), config.to_string()).unwrap();
    let problems = bench.problems("model");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].code == "unknown-method" && problems[0].message.contains("\"spqr\""),
        "{}",
        problems[0].message
    );
    for (to, scheme) in [("out.gguf", None), ("out", Some("nf4"))] {
        let error = bench.convert("model", to, scheme).unwrap_err();
        assert_eq!(error.code, Code::Refused, "{error}");
        assert!(error.message.contains("expected one of bitsandbytes"), "{error}");
    }
    bench.convert("model", "copy", None).unwrap();
    assert_eq!(files(&bench.path("model")), files(&bench.path("copy")));
}

#[test]
fn families_and_recipes_are_listed() {
    let rows = windlass::registries::families();
    let cell = |family: &str, container: &str| {
        let row = rows.iter().find(|row| row.name == family).unwrap();
        row.containers.iter().find(|(name, _)| *name == container).unwrap().1
    };
    assert_eq!(cell("ggml", "gguf"), Some("write"));
    assert_eq!(cell("ggml", "safetensors"), None);
    assert_eq!(cell("hqq", "safetensors"), Some("write"));
    assert_eq!(cell("bitsandbytes", "pytorch"), Some("read"));
    assert_eq!(cell("gptq", "safetensors"), Some("read"));
    assert_eq!(cell("gptq", "gguf"), None);
    let recipes = windlass::registries::recipes();
    assert!(recipes.contains(&"q4_k_m") && recipes.contains(&"f16") && !recipes.contains(&"q4_0"), "{recipes:?}");
}

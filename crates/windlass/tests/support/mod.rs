//! A small model made on the spot, and conversions of it.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use windlass::convert::{Conversion, Options, Report, Watch};
use windlass::tensor::Limits;
use windlass::{Error, Model};

pub struct Bench {
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        windlass::quickstart::make(&folder.path().join("model")).unwrap();
        Bench { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn convert(&self, from: &str, to: &str, scheme: Option<&str>) -> Result<Report, Error> {
        self.convert_with(from, to, Options { scheme: scheme.map(String::from), ..Options::default() })
    }

    pub fn convert_with(&self, from: &str, to: &str, options: Options) -> Result<Report, Error> {
        let stop = AtomicBool::new(false);
        let watch = Watch { stop: &stop, progress: &|_, _| {} };
        Conversion::plan(self.path(from), &self.path(to), options)?.run(&watch)
    }

    pub fn open(&self, name: &str) -> Model {
        Model::open(self.path(name), &Limits::default()).unwrap()
    }
}

pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

/// All values of a tensor as the container's scheme decodes them.
pub fn values(model: &Model, name: &str) -> Vec<f32> {
    let entry = model.source.tensor(name).unwrap();
    let planes: Vec<Vec<u8>> = (0..entry.planes().len())
        .map(|i| {
            let mut bytes = vec![0; entry.planes()[i].length as usize];
            model.source.read(entry, i, 0, &mut bytes).unwrap();
            bytes
        })
        .collect();
    let planes: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    let mut values = vec![0.0; entry.values() as usize];
    windlass::rows::decode(entry.element(), &planes, entry.columns(), &mut values).unwrap();
    values
}

pub fn files_beside(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.folder.path()).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// The tensors of `model` with other keys.
pub fn write_gguf(bench: &Bench, model: &Model, metadata: windlass::tensor::Metadata, name: &str) {
    use windlass::formats::{Target, TargetTensor};
    let entries = model.source.tensors();
    let tensor = |e: &windlass::formats::Entry| TargetTensor {
        name: e.name().into(),
        element: e.element().clone(),
        shape: e.shape().to_vec(),
    };
    let target = Target { tensors: entries.iter().map(tensor).collect(), metadata, ..Target::default() };
    let layout = windlass::formats::container("gguf").unwrap().layout(&target).unwrap();
    windlass::convert::write_layout(&bench.path(name), &layout, |i| {
        let mut bytes = vec![0; entries[i].bytes() as usize];
        model.source.read(&entries[i], 0, 0, &mut bytes)?;
        Ok(bytes)
    })
    .unwrap();
}

/// Writes a llama of 240 MiB in bf16, 30 layers of 8 MiB, and gives its size. All layers have the same made-up weights.
pub fn large(folder: &Path) -> u64 {
    use std::io::Write;
    const LAYERS: usize = 30;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 512, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true,
    });
    let (architecture, hyper) = windlass::catalog::from_hf_config(&config).unwrap();
    let pieces = architecture.pieces(&hyper).unwrap();
    let places = pieces
        .iter()
        .filter(|p| p.required)
        .filter_map(|p| p.places(windlass::catalog::Convention::Hf).into_iter().next());
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for place in places {
        let bytes = place.shape.iter().product::<usize>() * 2;
        let about = serde_json::json!({"dtype": "BF16", "shape": place.shape, "data_offsets": [at, at + bytes]});
        header.insert(place.tensor, about);
        at += bytes;
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join("model.safetensors")).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    // Between 2^-9 and 2^-6, of both signs.
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = (seed >> 40) as u16;
        (bits & 0x807f | (118 + (bits >> 8) % 3) << 7).to_le_bytes()
    };
    let block: Vec<u8> = (0..(1 << 20) / 2).flat_map(|_| next()).collect();
    for start in (0..at).step_by(block.len()) {
        file.write_all(&block[..block.len().min(at - start)]).unwrap();
    }
    file.flush().unwrap();
    at as u64
}

/// A PyTorch folder of these arrays: name, type, shape and bytes.
pub fn write_pytorch(folder: &Path, arrays: &[(String, windlass::tensor::DType, Vec<usize>, Vec<u8>)]) {
    let tensor = |(name, dtype, shape, _): &(String, windlass::tensor::DType, Vec<usize>, Vec<u8>)| {
        windlass::formats::TargetTensor { name: name.clone(), element: (*dtype).into(), shape: shape.clone() }
    };
    let files = vec![("config.json".to_string(), b"{}".to_vec())];
    let target =
        windlass::formats::Target { tensors: arrays.iter().map(tensor).collect(), files, ..Default::default() };
    let layout = windlass::formats::container("pytorch").unwrap().layout(&target).unwrap();
    assert!(layout.folder && layout.parts.len() == 1);
    std::fs::create_dir(folder).unwrap();
    let part = &layout.parts[0];
    let mut bytes = vec![0; part.length as usize];
    bytes[..part.head.len()].copy_from_slice(&part.head);
    for (offset, constant) in &part.constants {
        bytes[*offset as usize..][..constant.len()].copy_from_slice(constant);
    }
    for (extents, (_, _, _, values)) in layout.tensors.iter().zip(arrays) {
        bytes[extents[0].offset as usize..][..values.len()].copy_from_slice(values);
    }
    std::fs::write(folder.join(&part.name), bytes).unwrap();
}

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

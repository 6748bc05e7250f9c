//! A model, opened: its files, and which architecture they hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use windlass_catalog::{Architecture, Convention, Hyper};
use windlass_formats::adapter::{self, Adapter};
use windlass_formats::{Source, container, files, resolve_model};
use windlass_tensor::{DType, Limits};
use windlass_text::Tokenizer;

use crate::{Code, Error, Result};

/// An opened model.
pub struct Model {
    pub source: Source,
    /// What it is, or why that is not known.
    pub identity: std::result::Result<Identity, String>,
    /// What it changes, if it is not a model but an adapter.
    pub adapter: Option<Adapter>,
    /// A folder whose configuration and tokenizer stand in for the model's own.
    config_from: Option<PathBuf>,
}

/// Which architecture a model has, and how large it is.
pub struct Identity {
    pub architecture: &'static Architecture,
    pub hyper: Hyper,
}

impl Model {
    /// Opens a file, a folder, or `hf:ORG/NAME` from the local cache. Reads headers and config.json only.
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Model> {
        Model::open_with_config(path, None, limits)
    }

    /// As [`Model::open`], with config.json and tokenizer taken from another folder.
    pub fn open_with_config(path: impl AsRef<Path>, config_from: Option<&Path>, limits: &Limits) -> Result<Model> {
        let path = resolve_model(path.as_ref())?;
        let source = windlass_formats::open(&path, limits)?;
        let adapter = adapter::read(&source, limits)?;
        let identity = match config_from {
            Some(folder) => {
                let config = files::read_small(&folder.join("config.json"), limits.side_file_bytes)?;
                if adapter.is_some() { identify_base(&config) } else { identify_config(&config, &source) }
            }
            None if source.container() != "gguf" && adapter.is_some() => {
                identify_named(&source, adapter.as_ref(), limits)
            }
            None if adapter.is_some() => identify_adapter(&source),
            None => identify(&source, limits)?,
        };
        Ok(Model { source, identity, adapter, config_from: config_from.map(Path::to_path_buf) })
    }

    /// The tokenizer: from tokenizer.json where there is one, else from the keys of a GGUF.
    pub fn tokenizer(&self, limits: &Limits) -> Result<Tokenizer> {
        let files = self.side_files(limits)?;
        let tokenizer = match files.get("tokenizer.json") {
            Some(bytes) => Tokenizer::from_json(bytes, limits),
            None => Tokenizer::from_gguf(self.source.metadata(), limits),
        };
        tokenizer.map_err(|e| Error::from(e).at(self.source.path()))
    }

    /// Side files: of the folder, or those that travelled in the source's keys, below those of `--config-from`.
    pub fn side_files(&self, limits: &Limits) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = crate::convert::side_files(&self.source, limits)?;
        let Some(folder) = self.config_from.as_ref().filter(|_| self.adapter.is_none()) else { return Ok(files) };
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let path = entry.map_err(|e| Error::io(folder, e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_file() && windlass_formats::safetensors::is_side_file(name) {
                files.insert(name.into(), files::read_small(&path, limits.side_file_bytes)?);
            }
        }
        Ok(files)
    }

    /// The identity, or an error that says why there is none.
    pub fn identity(&self) -> Result<&Identity> {
        self.identity.as_ref().map_err(|why| Error::new(Code::Refused, why.clone()).at(self.source.path()))
    }
}

fn identify(source: &Source, limits: &Limits) -> Result<std::result::Result<Identity, String>> {
    if source.container() == "gguf" {
        return match windlass_catalog::from_gguf(source.metadata()) {
            Ok((architecture, hyper)) => identify_gguf(source, architecture, hyper).map(Ok),
            Err(error) => Ok(Err(error.to_string())),
        };
    }
    match source.side_file("config.json", limits)? {
        Some(bytes) => Ok(identify_config(&bytes, source)),
        None => Ok(Err("there is no config.json beside the weights, so the architecture is not known".into())),
    }
}

/// GGUF says some hyper-parameters by its tensors: their presence, or values computed from the originals.
fn identify_gguf(source: &Source, architecture: &'static Architecture, hyper: Hyper) -> Result<Identity> {
    let mut generated = Vec::new();
    for name in architecture.generated_names(Convention::Gguf) {
        let Some(entry) = source.tensor(name) else { continue };
        if entry.shape().len() == 1 && entry.element().dtype() == Some(DType::F32) && entry.columns() < 1 << 16 {
            let mut values = vec![0.0; entry.columns()];
            let mut bytes = vec![0; values.len() * 4];
            source.read(entry, 0, 0, &mut bytes)?;
            windlass_quant::float::to_f32(DType::F32, &bytes, &mut values)?;
            generated.push((name.to_string(), values));
        }
    }
    let hyper = architecture.absorb(hyper, &generated)?;
    let hyper = architecture.settle(hyper, Convention::Gguf, |name| source.tensor(name).is_some());
    Ok(Identity { architecture, hyper })
}

/// The base of an adapter, of which the adapter itself has no tensor.
fn identify_base(config: &[u8]) -> std::result::Result<Identity, String> {
    let config: Json = serde_json::from_slice(config).map_err(|e| format!("config.json: {e}"))?;
    let (architecture, hyper) = windlass_catalog::from_hf_config(&config).map_err(|e| e.to_string())?;
    Ok(Identity { architecture, hyper })
}

fn identify_adapter(source: &Source) -> std::result::Result<Identity, String> {
    let known =
        windlass_catalog::from_gguf(source.metadata()).map(|(architecture, hyper)| Identity { architecture, hyper });
    known.map_err(|error| error.to_string())
}

/// The base that an adapter names, if it is found: as a path, beside the adapter, or in the hub's local cache.
fn identify_named(
    source: &Source,
    adapter: Option<&Adapter>,
    limits: &Limits,
) -> std::result::Result<Identity, String> {
    let why = "an adapter does not say which architecture its base has";
    let Some(base) = adapter.and_then(|adapter| adapter.settings.base()) else { return Err(why.into()) };
    let in_cache = resolve_model(format!("hf:{base}")).ok();
    let places = [Some(PathBuf::from(base)), Some(source.path().join(base)), in_cache];
    let mut configs = places.into_iter().flatten().map(|place| place.join("config.json"));
    let Some(path) = configs.find(|path| path.is_file()) else {
        return Err(format!("{why}, and {base:?}, which it names, was not found here"));
    };
    let config = files::read_small(&path, limits.side_file_bytes).map_err(|e| e.to_string())?;
    identify_base(&config).map_err(|error| format!("{}: {error}", path.display()))
}

fn identify_config(bytes: &[u8], source: &Source) -> std::result::Result<Identity, String> {
    let config: Json = serde_json::from_slice(bytes).map_err(|e| format!("config.json: {e}"))?;
    let (architecture, hyper) = windlass_catalog::from_hf_config(&config).map_err(|e| e.to_string())?;
    let convention = container(source.container()).map_or(Convention::Hf, |c| c.convention());
    let hyper = architecture.settle(hyper, convention, |name| source.tensor(name).is_some());
    Ok(Identity { architecture, hyper })
}

//! GGUF: one file, or several numbered ones, with keys, tensors and vocabulary together.

mod header;
mod imatrix;
mod input;
mod split;
mod types;
mod value;
mod verify;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use windlass_catalog::Convention;
use windlass_tensor::{Element, Limits};

use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target};

pub use header::{Header, TensorInfo};
pub use imatrix::{Imatrix, ImatrixEntry, read_imatrix};
pub use types::{element, type_id};

/// The container of llama.cpp.
pub struct Gguf;

impl Container for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn description(&self) -> &'static str {
        "GGUF of llama.cpp: versions 1 to 3, also split; written as version 3"
    }

    fn convention(&self) -> Convention {
        Convention::Gguf
    }

    fn detect(&self, probe: &Probe) -> bool {
        let named = |extension: &str| probe.files.iter().any(|f| f.ends_with(extension));
        probe.head.starts_with(b"GGUF") || (named(".gguf") && !named(".safetensors"))
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        if path.is_dir() { split::open(&only_model(path)?, limits) } else { split::open(path, limits) }
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        verify::verify(source, limits)
    }

    fn can_hold(&self, element: &Element) -> bool {
        type_id(element).is_some()
    }

    fn layout(&self, target: &Target) -> Result<Layout, Error> {
        write::layout(target)
    }
}

/// Parses the bytes of one file, tensors included, as [`Container::open`] does.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Header, Error> {
    header::parse(&bytes, bytes.len() as u64, Path::new("(bytes)"), limits)
}

/// Opens one file and parses its header.
fn load(path: &Path, limits: &Limits) -> Result<(File, Header), Error> {
    let file = crate::files::open(path)?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let header = header::parse(&file, length, path, limits)?;
    Ok((file, header))
}

/// Adds the tensors of a file that is part `part` of the source.
fn add_tensors(builder: &mut SourceBuilder, part: usize, tensors: Vec<TensorInfo>) -> Result<(), Error> {
    for info in tensors {
        let extent = Extent { part, offset: info.offset(), length: info.bytes() };
        let (name, element, shape) = info.into_parts();
        builder.tensor(name, element, shape, vec![extent])?;
    }
    Ok(())
}

/// The one model of a folder: its only file, or the first part of its only set.
fn only_model(folder: &Path) -> Result<PathBuf, Error> {
    let probe = Probe::new(folder)?;
    let later_part = |name: &str| split::PartName::parse(name).is_some_and(|part| part.number > 0);
    let models: Vec<&String> = probe.files.iter().filter(|f| f.ends_with(".gguf") && !later_part(f)).collect();
    match models[..] {
        [only] => Ok(folder.join(only)),
        [] => {
            let message = "the folder has no file NAME.gguf and no first part NAME-00001-of-0000N.gguf";
            Err(Error::refused(folder, Problem::new("missing-part", message)))
        }
        _ => {
            let names: Vec<&str> = models.iter().take(8).map(|f| f.as_str()).collect();
            let message = format!("the folder has {} models: {}", models.len(), names.join(", "));
            Err(Error::refused(folder, Problem::new("many-models", message).help("name one of them")))
        }
    }
}

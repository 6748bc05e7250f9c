//! PyTorch files (`torch.save`): the zip form, the older form, and folders of them with an index.
//!
//! Such a file is a pickle, which is a program. It is run by a machine of its own ([`pickle`]) that knows tensors and
//! nothing else: a file that asks for any other name is refused, and the refusal says the name.
//!
//! Read only: a zip has records between and behind its members, and a [`Layout`] has none but at the beginning.

use std::path::Path;
use std::sync::Arc;

use windlass_catalog::Convention;
use windlass_tensor::{Element, Limits, Metadata};

use crate::safetensors::folder::{self, Naming};
use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target, zip};

mod checkpoint;
mod globals;
mod pickle;
mod state;

pub use checkpoint::{Checkpoint, TensorInfo};

/// Names of the weights in a folder of transformers.
const NAMING: Naming = Naming {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    prefix: "pytorch_model-",
    extension: ".bin",
};

/// The container.
pub struct PyTorch;

/// Parses a whole file held in memory.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Checkpoint, Problem> {
    checkpoint::read(&bytes, limits)
}

impl Container for PyTorch {
    fn name(&self) -> &'static str {
        "pytorch"
    }

    fn description(&self) -> &'static str {
        "PyTorch: state dicts of torch.save (.bin, .pt, .pth) or a folder of them; no code is run; read only"
    }

    fn convention(&self) -> Convention {
        Convention::Hf
    }

    fn detect(&self, probe: &Probe) -> bool {
        let part = |name: &String| name.starts_with(NAMING.prefix) && name.ends_with(NAMING.extension);
        let folder = probe.has(NAMING.single) || probe.has(NAMING.index) || probe.files.iter().any(part);
        folder || checkpoint::looks_like_one(&probe.head)
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        let mut builder = SourceBuilder::new(self.name(), "", path, limits);
        let mut metadata = Metadata::new();
        if !path.is_dir() {
            add(path, limits, &mut builder, &mut metadata)?;
            return Ok(finish(builder, metadata));
        }
        let files = Probe::new(path)?.files;
        let (names, index) = folder::part_names(path, &files, &NAMING, limits)?;
        let mut found = Vec::new();
        for name in &names {
            let tensors = add(&path.join(name), limits, &mut builder, &mut metadata)?;
            found.extend(tensors.into_iter().map(|tensor| (name.as_str(), tensor)));
        }
        if let Some(index) = index {
            let found: Vec<_> = found.iter().map(|(part, tensor)| (*part, tensor.as_str())).collect();
            index.check(&found).map_err(|p| Error::refused(&path.join(NAMING.index), p))?;
        }
        folder::side_files(path, &files, &mut builder)?;
        Ok(finish(builder, metadata))
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        let mut problems = crate::safetensors::verify_folder(source, &NAMING, limits)?;
        for part in source.parts() {
            problems.extend(verify_part(part.path(), limits)?);
        }
        Ok(problems)
    }

    fn can_hold(&self, _: &Element) -> bool {
        false
    }

    fn layout(&self, _: &Target) -> Result<Layout, Error> {
        Err(Error::Layout("pytorch files are only read: write safetensors instead, which PyTorch programs read".into()))
    }
}

/// Adds the tensors of one file; gives their names.
fn add(
    path: &Path,
    limits: &Limits,
    builder: &mut SourceBuilder,
    metadata: &mut Metadata,
) -> Result<Vec<String>, Error> {
    let file = crate::files::open(path)?;
    let found = checkpoint::read(&file, limits).map_err(|p| Error::refused(path, p))?;
    let part = builder.part(path, Arc::new(file))?;
    let mut names = Vec::with_capacity(found.tensors.len());
    for tensor in found.tensors {
        let extent = Extent { part, offset: tensor.offset, length: tensor.length };
        names.push(tensor.name.clone());
        builder.tensor(tensor.name, Element::Plain(tensor.dtype), tensor.shape, vec![extent])?;
    }
    found.metadata.iter().for_each(|(key, value)| metadata.set(key, value.clone()));
    Ok(names)
}

/// Notes where the names come from, as safetensors files made from PyTorch's do, and ends the source.
fn finish(mut builder: SourceBuilder, mut metadata: Metadata) -> Source {
    metadata.set("format", "pt");
    builder.metadata(metadata);
    builder.build()
}

/// Checksums of a zip, and entries that are not tensors.
fn verify_part(path: &Path, limits: &Limits) -> Result<Vec<Problem>, Error> {
    let refuse = |problem| Error::refused(path, problem);
    let file = crate::files::open(path)?;
    let mut problems = checkpoint::read(&file, limits).map_err(refuse)?.skipped;
    if checkpoint::is_zip(&file).map_err(refuse)? {
        let members = zip::members(&file, limits, &checkpoint::ZIP).map_err(refuse)?;
        // PyTorch can be told not to compute checksums, and then writes none at all.
        if members.iter().any(|member| member.crc != 0) {
            problems.extend(zip::verify(&file, &members).map_err(refuse)?);
        }
    }
    Ok(problems)
}

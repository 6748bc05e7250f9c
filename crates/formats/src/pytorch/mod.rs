//! PyTorch files (`torch.save`): the zip form, the older form, and folders of them with an index.
//!
//! Such a file is a pickle, which is a program. It is run by a machine of its own ([`pickle`]) that knows tensors and
//! nothing else: a file that asks for any other name is refused, and the refusal says the name.

use std::path::Path;
use std::sync::Arc;

use windlass_catalog::Convention;
use windlass_tensor::{Element, Limits, Metadata};

use crate::arrays::Raw;
use crate::safetensors::folder::{self, Naming};
use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target, adapter, libraries, zip};

mod checkpoint;
mod globals;
mod pickle;
mod state;
mod write;

pub use checkpoint::{Checkpoint, TensorInfo};

/// Names of the weights in a folder of transformers.
const NAMING: Naming = Naming {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    prefix: "pytorch_model-",
    extension: ".bin",
    adapters: &[adapter::PEFT_PICKLE],
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
        "PyTorch: state dicts of torch.save (.bin, .pt, .pth) or a folder of them; no code is run"
    }

    fn convention(&self) -> Convention {
        Convention::Hf
    }

    fn detect(&self, probe: &Probe) -> bool {
        let part = |name: &String| name.starts_with(NAMING.prefix) && name.ends_with(NAMING.extension);
        let adapter = probe.has(adapter::PEFT_PICKLE) && probe.has(adapter::CONFIG);
        let folder = adapter || probe.has(NAMING.single) || probe.has(NAMING.index) || probe.files.iter().any(part);
        folder || checkpoint::looks_like_one(&probe.head)
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        let mut builder = SourceBuilder::new(self.name(), "", path, limits);
        let mut metadata = Metadata::new();
        let mut arrays = Vec::new();
        if path.is_dir() {
            let files = Probe::new(path)?.files;
            let (names, index) = folder::part_names(path, &files, &NAMING, limits)?;
            for name in &names {
                arrays.extend(read(&path.join(name), limits, &mut builder, &mut metadata)?);
            }
            if let Some(index) = index {
                let part = |array: &Raw| names.get(array.extent.part).map_or("", String::as_str);
                let found: Vec<_> = arrays.iter().map(|array| (part(array), array.name.as_str())).collect();
                index.check(&found).map_err(|p| Error::refused(&path.join(NAMING.index), p))?;
            }
            folder::side_files(path, &files, &mut builder)?;
        } else {
            arrays = read(path, limits, &mut builder, &mut metadata)?;
        }
        libraries::join(&folder::read_config(path, limits)?, arrays, &mut builder, limits)?;
        // Safetensors files made from PyTorch's say where the names come from.
        metadata.set("format", "pt");
        builder.metadata(metadata);
        Ok(builder.build())
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        let mut problems = crate::safetensors::verify_folder(source, &NAMING, limits)?;
        for part in source.parts() {
            problems.extend(verify_part(part.path(), limits)?);
        }
        Ok(problems)
    }

    fn can_hold(&self, element: &Element) -> bool {
        element.dtype().is_some_and(|dtype| globals::name_of(dtype).is_some())
    }

    fn joins_libraries(&self) -> bool {
        true
    }

    fn layout(&self, target: &Target) -> Result<Layout, Error> {
        write::layout(target)
    }
}

/// Adds one file; gives its arrays.
fn read(path: &Path, limits: &Limits, builder: &mut SourceBuilder, metadata: &mut Metadata) -> Result<Vec<Raw>, Error> {
    let file = crate::files::open(path)?;
    let found = checkpoint::read(&file, limits).map_err(|p| Error::refused(path, p))?;
    let part = builder.part(path, Arc::new(file))?;
    let array = |tensor: TensorInfo| {
        let extent = Extent { part, offset: tensor.offset, length: tensor.length };
        Raw { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, extent }
    };
    let arrays = found.tensors.into_iter().map(array).collect();
    found.metadata.iter().for_each(|(key, value)| metadata.set(key, value.clone()));
    Ok(arrays)
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

//! SafeTensors: one file, or a Hugging Face folder with an index and parts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use windlass_catalog::Convention;
use windlass_tensor::{Element, Limits, Metadata};

use crate::arrays::Raw;
use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target};
use crate::{adapter, libraries};

pub(crate) mod folder;
mod header;
pub(crate) mod index;
pub(crate) mod write;

use folder::Naming;
pub use folder::{is_model_file, is_module_file, is_side_file};
pub use header::{Header, TensorInfo, parse};
pub use index::{INDEX, Index};

/// The container.
pub struct SafeTensors;

impl Container for SafeTensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn description(&self) -> &'static str {
        "SafeTensors: one file, a Hugging Face folder (config.json, model.safetensors or parts), or a PEFT adapter"
    }

    fn convention(&self) -> Convention {
        Convention::Hf
    }

    fn detect(&self, probe: &Probe) -> bool {
        if !probe.head.is_empty() {
            return header::looks_like_header(&probe.head);
        }
        probe.files.iter().any(|name| name.ends_with(".safetensors") || name == INDEX)
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        let mut builder = SourceBuilder::new(self.name(), "", path, limits);
        let headers = folder::read(path, limits, &mut builder)?;
        let mut arrays = Vec::new();
        for (part, (_, header)) in headers.parts.into_iter().enumerate() {
            let array = |tensor: TensorInfo| {
                let extent = Extent { part, offset: tensor.offset, length: tensor.length };
                Raw { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, extent }
            };
            arrays.extend(header.tensors.into_iter().map(array));
        }
        let config = folder::read_config(path, limits)?;
        libraries::join(&config, arrays, &mut builder, limits)?;
        builder.metadata(headers.metadata);
        Ok(builder.build())
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        verify_folder(source, &folder::NAMING, limits)
    }

    fn can_hold(&self, element: &Element) -> bool {
        match write::packing(element) {
            Some(packing) => libraries::can_hold(packing.scheme),
            None => element.dtype().is_some(),
        }
    }

    fn joins_libraries(&self) -> bool {
        true
    }

    fn layout(&self, target: &Target) -> Result<Layout, Error> {
        let folder = !target.files.is_empty() || target.part_size.is_some();
        let mut metadata = target.metadata.clone();
        if metadata.is_empty() && folder {
            // Transformers refuses a file that does not say which library its names belong to.
            metadata = Metadata::from_iter([("format".to_string(), "pt".into())]);
        }
        let style = write::Style { folder: false, index_always: false, indent: 2, adapter: adapter::PEFT_WEIGHTS };
        let library = libraries::of(target)?;
        let packed = target.tensors.iter().enumerate().filter_map(|(i, t)| Some((i, t, write::packing(&t.element)?)));
        let (mut stored, mut arrangements) = (HashMap::new(), BTreeMap::new());
        for (library, (i, tensor, packing)) in library.iter().cycle().zip(packed) {
            let (arrays, arrangement) = libraries::store(*library, tensor, packing)?;
            stored.insert(tensor.name.as_str(), arrays);
            arrangements.extend(arrangement.map(|arrangement| (i, arrangement)));
        }
        let mut layout = write::layout(target, &metadata, &style, |tensor| match tensor.element.dtype() {
            Some(dtype) => Ok(vec![write::plain(tensor, dtype)?]),
            None => stored
                .get(tensor.name.as_str())
                .cloned()
                .ok_or_else(|| cannot_hold(self.name(), &tensor.element, &tensor.name)),
        })?;
        layout.arrangements = arrangements;
        match library {
            Some(library) => libraries::describe(library, target, &mut layout)?,
            None => without_quantization(&mut layout)?,
        }
        Ok(layout)
    }
}

/// Nothing is packed here; a config.json that still says so would be that of the source.
pub(crate) fn without_quantization(layout: &mut Layout) -> Result<(), Error> {
    libraries::without_own_files(layout);
    for (_, config) in layout.files.iter_mut().filter(|(name, _)| name == "config.json") {
        *config = crate::mlx::without_quantization(config);
        libraries::undescribe(config)?;
    }
    Ok(())
}

/// What an index of a folder says wrongly, and what a folder lacks.
pub(crate) fn verify_folder(source: &Source, naming: &Naming, limits: &Limits) -> Result<Vec<Problem>, Error> {
    let (path, mut problems) = (source.path(), Vec::new());
    if !path.is_dir() {
        return Ok(problems);
    }
    if adapter::read(source, limits)?.is_some() {
        return Ok(problems);
    }
    problems.extend(libraries::unknown_method(&folder::read_config(path, limits)?));
    if !source.side_files().contains_key("config.json") {
        let problem = Problem::new("no-config", "the folder has no config.json: programs cannot tell its architecture");
        problems.push(problem.help("download config.json of the model"));
    }
    if !path.join(naming.index).is_file() {
        if source.parts().len() > 1 {
            problems.push(Problem::new("no-index", format!("{} parts and no {}", source.parts().len(), naming.index)));
        }
        return Ok(problems);
    }
    match folder::read_index(path, naming, limits) {
        Ok(index) => verify_index(source, &index, naming, &mut problems),
        Err(Error::Refused { problem, .. }) => problems.push(*problem),
        Err(other) => return Err(other),
    }
    Ok(problems)
}

fn verify_index(source: &Source, index: &Index, naming: &Naming, problems: &mut Vec<Problem>) {
    let bytes = source.bytes();
    if let Some(total) = index.total_size.filter(|total| *total != bytes) {
        let message = format!("the index says the tensors have {total} bytes together, they have {bytes}");
        problems.push(Problem::new("wrong-total-size", message));
    }
    let names: Vec<_> = source.parts().iter().filter_map(|p| p.path().file_name()?.to_str()).collect();
    if index.parts().iter().any(|part| !names.contains(part)) {
        let message = format!("the index lists parts beside {}: it belongs to another version", names.join(", "));
        problems.push(Problem::new("stale-index", message).help(format!("remove {}", naming.index)));
    }
}

/// The error for an element that `container` has no way to write.
pub(crate) fn cannot_hold(container: &'static str, element: &Element, tensor: &str) -> Error {
    let can = windlass_tensor::DType::built_in().map(|d| d.name().to_string()).collect();
    Error::CannotHold { container, what: format!("{} (tensor {tensor:?})", element.name()), can }
}

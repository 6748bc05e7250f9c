//! What a plan consists of, step by step: the container, outputs, their elements, what goes with them, and pieces.

use std::path::Path;

use windlass_catalog::Convention;
use windlass_formats::{ContainerRef, Layout, container, containers, files};
use windlass_quant::recipe::{ImportanceMatrix, Recipe};
use windlass_runtime::system;
use windlass_tensor::{Bytes, Element, Limits, Value};

use super::belongings::Belongings;
use super::blocks::{Blocks, Piece};
use super::names::{self, Output};
use super::{Options, adapter, buffers, encoding, shifted};
use crate::rows::{packing, rows_and_columns};
use crate::{Code, Error, Model, Result};

/// Refuses arrays of a library that is not known here: they would be taken for weights. A plain copy is fine.
pub(super) fn check_library(model: &Model, container: ContainerRef, options: &Options) -> Result<()> {
    let copies = options.scheme.is_none() && options.recipe.is_none() && container.name() == model.source.container();
    let Some(config) = model.source.side_file("config.json", &options.limits)?.filter(|_| !copies) else {
        return Ok(());
    };
    let config = serde_json::from_slice(&config).unwrap_or_default();
    match windlass_formats::libraries::unknown_method(&config) {
        Some(problem) => Err(Error::refused(model.source.path(), problem)),
        None => Ok(()),
    }
}

pub(super) fn choose_container(target: &Path, options: &Options) -> Result<ContainerRef> {
    let extension = target.extension().map(|e| e.to_string_lossy().to_lowercase());
    let mlx_scheme = options.scheme.as_deref().is_some_and(|s| s.to_lowercase().starts_with("mlx"));
    let name = match (&options.to, extension.as_deref()) {
        (Some(name), _) => name.as_str(),
        (None, Some("gguf")) => "gguf",
        (None, Some("npz")) => "npz",
        (None, Some("bin" | "pt" | "pth")) => "pytorch",
        (None, _) if mlx_scheme => "mlx",
        (None, _) => "safetensors",
    };
    container(name).ok_or_else(|| {
        let known: Vec<_> = containers().iter().map(|c| c.name()).collect();
        Error::usage(format!("no container is called {name:?}")).help(format!("choose one of: {}", known.join(", ")))
    })
}

pub(crate) fn outputs(model: &Model, to: ContainerRef) -> Result<Vec<Output>> {
    let from = container(model.source.container()).map_or(Convention::Hf, |c| c.convention());
    let to = to.convention();
    match &model.identity {
        Ok(identity) if from == to && !names::packs_otherwise(&model.source, identity, from)? => {
            let mut outputs = names::keep_names(&model.source);
            names::name_in_gguf(&mut outputs, identity, from)?;
            Ok(outputs)
        }
        Err(_) if from == to => Ok(names::keep_names(&model.source)),
        Ok(identity) => {
            let mut outputs = names::map_names(&model.source, identity, from, to)?;
            if from == Convention::Gguf {
                shifted::restore(&model.source, &mut outputs)?;
                buffers::restore(&model.source, &mut outputs)?;
            }
            Ok(outputs)
        }
        Err(_) if from != Convention::Gguf && to != Convention::Gguf => Ok(names::keep_names(&model.source)),
        // A bag of tensors without a configuration keeps its names; a model of unknown architecture is refused.
        Err(_) if model.source.side_files().is_empty() && from != Convention::Gguf => {
            Ok(names::keep_names(&model.source))
        }
        Err(_) => model.identity().map(|_| Vec::new()),
    }
}

/// Elements of all outputs, and the `general.file_type` that says so in GGUF.
pub(super) fn elements(
    model: &Model,
    outputs: &[Output],
    container: ContainerRef,
    options: &Options,
    has_imatrix: bool,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Element>, Option<u32>)> {
    if model.adapter.is_some() && (options.recipe.is_some() || options.scheme.is_some()) {
        return Ok((adapter::chosen_elements(model, outputs, container, options)?, None));
    }
    let identity = model.identity.as_ref().ok();
    let recipe = match (&options.recipe, &options.scheme) {
        (Some(_), Some(_)) => return Err(Error::usage("--scheme and --recipe both say which scheme to use: give one")),
        (Some(path), None) => {
            let bytes = files::read_small(path, options.limits.side_file_bytes)?;
            let text = String::from_utf8(bytes).map_err(|_| Error::usage(format!("{} is not text", path.display())))?;
            let in_file = |e: windlass_quant::Error| Error::usage(format!("{}: {e}", path.display())).at(path);
            Recipe::from_toml(&text).map_err(in_file)?
        }
        (None, Some(name)) if options.pure => Recipe::pure_named(name)?,
        (None, Some(name)) => Recipe::named(name)?,
        (None, None) => {
            let elements = encoding::by_source(&model.source, outputs, container)?;
            return Ok((elements, None));
        }
    };
    let names: Vec<&str> = outputs.iter().flat_map(|o| [o.gguf_name.as_str(), o.name.as_str()]).collect();
    let idle = recipe.idle_rules(&names).into_iter();
    warnings.extend(idle.map(|pattern| format!("the recipe's rule for {pattern:?} matches no tensor")));
    let elements = encoding::by_recipe(&recipe, &model.source, identity, outputs, container, has_imatrix)?;
    Ok((elements, recipe.file_type()))
}

/// Whether a target's name is that of a file that holds tensors and nothing else.
pub(super) fn is_bare(target: &Path) -> bool {
    const SINGLE: [&str; 5] = ["safetensors", "bin", "pt", "pth", "npz"];
    let extension = target.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| SINGLE.contains(&e.as_str()))
}

pub(super) fn belongings(
    model: &Model,
    outputs: &[Output],
    container: ContainerRef,
    target: &Path,
    file_type: Option<u32>,
    limits: &Limits,
) -> Result<Belongings> {
    let identity = model.identity.as_ref().ok();
    let files = model.side_files(limits)?;
    if container.convention() == Convention::Gguf {
        let embedding = outputs.iter().find(|o| o.gguf_name == "token_embd.weight");
        let vocabulary = embedding.and_then(|o| o.shape.first()).copied().unwrap_or(0);
        let mut all = super::belongings::for_gguf(&model.source, &files, identity, outputs, vocabulary, limits)?;
        if let Some(number) = file_type {
            all.metadata.set("general.file_type", number);
        }
        if let Some(key) = crate::embed::pooling_key(model, limits) {
            all.metadata.set(key.0, key.1);
        }
        all.metadata.set("general.quantization_version", Value::U32(2));
        return Ok(all);
    }
    let mut all = super::belongings::for_folder(&model.source, files, identity, container.convention(), limits)?;
    if is_bare(target) {
        all.files.clear();
    }
    Ok(all)
}

pub(super) fn pieces(
    model: &Model,
    outputs: Vec<Output>,
    elements: Vec<Element>,
    layout: &Layout,
    imatrix: Option<&ImportanceMatrix>,
    exact: bool,
) -> Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(outputs.len());
    for (i, ((output, element), extents)) in outputs.into_iter().zip(elements).zip(&layout.tensors).enumerate() {
        if packing(&element).is_some() && output.shape.len() < 2 {
            return Err(Error::usage("a vector cannot be quantized").tensor(&output.name));
        }
        let measure = encoding::loses(&model.source, &output, &element);
        let importance = match imatrix {
            Some(imatrix) if measure => importance(imatrix, &output, &element)?,
            _ => None,
        };
        let arrangement = layout.arrangements.get(&i).cloned();
        let exact = exact && encoding::narrows(&model.source, &output, &element);
        let extents = extents.clone();
        pieces.push(Piece { output, element, extents, arrangement, importance, measure, exact, edit_bytes: 0 });
    }
    Ok(pieces)
}

/// The importance of a tensor's columns. Refuses a matrix made for another model, and one that lacks what a scheme needs;
/// embeddings may differ, because they are looked up.
fn importance(imatrix: &ImportanceMatrix, output: &Output, element: &Element) -> Result<Option<Vec<f32>>> {
    let (_, columns) = rows_and_columns(&output.shape);
    let experts = if output.shape.len() > 2 { output.shape[0] } else { 1 };
    let (name, found) = (&output.gguf_name, imatrix.get(&output.gguf_name, columns, experts));
    if let (Some(packing), None) = (packing(element), found) {
        let scheme = packing.scheme.name();
        if let Some(count) = imatrix.count(name).filter(|_| name != "token_embd.weight") {
            let message = format!("the importance matrix has {count} weights, expected {}", columns * experts);
            return Err(Error::new(Code::Refused, message).tensor(name).help("give one that was made with this model"));
        }
        if windlass_quant::recipe::needs_importance(scheme, name) {
            let message = format!("the importance matrix lacks this tensor, which {scheme} needs");
            return Err(Error::new(Code::Refused, message).tensor(name).help("give one that was made with this model"));
        }
    }
    Ok(found.map(<[f32]>::to_vec))
}

/// A header that no reader would accept is refused before anything is written.
pub(super) fn check_heads(target: &Path, layout: &Layout, limits: &Limits) -> Result<()> {
    let largest = layout.parts.iter().map(|part| part.head.len() as u64).max().unwrap_or(0);
    if largest <= limits.header_bytes {
        return Ok(());
    }
    let (found, most) = (Bytes(largest), Bytes(limits.header_bytes));
    let message = format!("the header of {} would have {found}, readers accept {most}", target.display());
    Err(Error::new(Code::Refused, message)
        .at(target)
        .help("take large files that are not of the model out of its folder"))
}

/// As many threads as asked for, if their blocks fit the limit together; none where not even one does.
pub(super) fn affordable_threads(model: &Model, pieces: &[Piece], options: &Options) -> usize {
    let block = Blocks::memory_per_step(&model.source, pieces).max(1);
    let left = options.memory_limit.saturating_sub(system::peak_memory().unwrap_or(0));
    usize::try_from(left / block).unwrap_or(usize::MAX).min(options.threads.max(1))
}

pub(super) fn read_imatrix(path: &Path, limits: &Limits) -> Result<ImportanceMatrix> {
    let mut matrix = ImportanceMatrix::new();
    for entry in windlass_formats::gguf::read_imatrix(path, limits)?.entries {
        matrix.insert(&entry.name, entry.values).map_err(|e| Error::from(e).at(path))?;
    }
    Ok(matrix)
}

//! Checkpoints of the libraries that quantize: packed tensors as plain arrays that config.json describes.
//!
//! Each library has a file that knows the names of its arrays, which scheme they hold, and what to write. Containers of
//! plain arrays (safetensors, PyTorch) ask here before they take arrays for tensors.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;
use windlass_quant::arrange::ArrangementRef;
use windlass_quant::{Family, Packing, SchemeRef};
use windlass_tensor::{DType, Limits, PackedLayout};

use crate::arrays::{Checkpoint, Raw};
use crate::safetensors::write::{self, Stored};
use crate::{Error, Extent, Layout, Problem, SourceBuilder, Target, TargetTensor};

mod awq;
mod bitsandbytes;
mod compressed_tensors;
mod fp8;
mod gptq;
mod grouped;
mod hqq;
mod modelopt;
mod mxfp4;
mod quanto;

/// A library of quantization, as its checkpoints show it.
pub trait Library: Sync {
    /// As `quantization_config.quant_method` spells it.
    fn name(&self) -> &'static str;

    /// The families whose schemes it may find.
    fn reads(&self) -> &'static [Family];

    /// Whether a checkpoint is this library's.
    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.method() == Some(self.name())
    }

    /// All packed tensors of a checkpoint.
    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem>;

    /// The family whose schemes it writes, if it writes.
    fn writes(&self) -> Option<Family> {
        None
    }

    /// The arrays that a tensor is stored as: first those that hold its planes, or the arrays of its arrangement, in
    /// order; then constants.
    fn store(
        &self,
        _tensor: &TargetTensor,
        packing: &Packing,
    ) -> Result<(Vec<Stored>, Option<ArrangementRef>), String> {
        Err(format!("{} is read, not written", packing.scheme.name()))
    }

    /// Files of its own beside the weights of a target.
    fn files(&self, _target: &Target) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }

    /// Names of all files of its own, which no other checkpoint has.
    fn own_files(&self) -> &'static [&'static str] {
        &[]
    }

    /// `quantization_config` for a model with these tensors; `Null` for none. `before` is what the source's config.json said, if that was
    /// this library's.
    fn describe(&self, _target: &Target, _before: Option<&Json>) -> Json {
        Json::Null
    }
}

/// One packed tensor, put together from arrays.
pub struct Joined {
    /// Its name in the model: `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    pub packing: Packing,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    /// Numbers of the arrays that hold its planes, or those of its arrangement, in order.
    pub planes: Vec<usize>,
    pub arrangement: Option<ArrangementRef>,
    /// Numbers of arrays that describe it and hold nothing else.
    pub constants: Vec<usize>,
}

/// Every library. Adding one costs its file and a line here.
static LIBRARIES: &[&dyn Library] = &[
    &bitsandbytes::BitsAndBytes,
    &gptq::Gptq,
    &awq::Awq,
    &compressed_tensors::CompressedTensors,
    &modelopt::ModelOpt,
    &fp8::Fp8,
    &mxfp4::Mxfp4,
    &hqq::Hqq,
    &quanto::Quanto,
];

/// The libraries, by name.
pub fn libraries() -> impl Iterator<Item = &'static dyn Library> {
    LIBRARIES.iter().copied()
}

/// Whether checkpoints are known that have schemes of this family.
pub fn can_read(family: Family) -> bool {
    libraries().any(|library| library.reads().contains(&family))
}

/// What is wrong with what config.json says of quantization: a library that is not known here, whose arrays are then taken
/// for tensors.
pub fn unknown_method(config: &Json) -> Option<Problem> {
    let method = config.get("quantization_config")?.get("quant_method")?;
    let text = method.as_str().map_or_else(|| method.to_string(), String::from);
    if libraries().any(|library| library.name() == text) {
        return None;
    }
    let known: Vec<&str> = libraries().map(|library| library.name()).collect();
    let text: String = text.chars().take(64).collect();
    let message = format!("config.json: quant_method is {text:?}, expected one of {}", known.join(", "));
    Some(Problem::new("unknown-method", message).help("convert the model from a copy that was not quantized"))
}

/// Adds the tensors of a checkpoint to a source: packed ones joined, the others as they are.
pub(crate) fn join(config: &Json, arrays: Vec<Raw>, builder: &mut SourceBuilder, limits: &Limits) -> Result<(), Error> {
    let path = builder.path().to_path_buf();
    let refuse = |problem: Problem| Error::refused(&path, problem);
    let checkpoint = Checkpoint::new(config, &arrays, builder, limits).map_err(refuse)?;
    let library = libraries().find(|library| library.detect(&checkpoint));
    let joined = library.map(|library| library.join(&checkpoint)).transpose().map_err(refuse)?.unwrap_or_default();
    let mut taken = HashSet::new();
    for tensor in &joined {
        let all = tensor.planes.iter().chain(&tensor.constants);
        if let Some(twice) = all.clone().find(|i| !taken.insert(**i)) {
            let name = arrays.get(*twice).map_or("", |array| array.name.as_str());
            let message = format!("the array {name} would belong to two tensors");
            return Err(refuse(Problem::new("bad-planes", message).tensor(&tensor.name)));
        }
    }
    let mut first: HashMap<usize, Joined> = HashMap::new();
    for tensor in joined {
        let at = tensor.planes.iter().chain(&tensor.constants).min().copied().unwrap_or(0);
        first.insert(at, tensor);
    }
    let extent = |i: &usize| arrays.get(*i).map(|array| array.extent);
    for (i, array) in arrays.iter().enumerate() {
        if let Some(tensor) = first.remove(&i) {
            let extents: Vec<Extent> = tensor.planes.iter().filter_map(extent).collect();
            match tensor.arrangement {
                Some(how) => builder.arranged(tensor.name, tensor.packing, how, tensor.shape, extents)?,
                None => builder.tensor(tensor.name, tensor.packing.element(), tensor.shape, extents)?,
            }
        } else if !taken.contains(&i) {
            builder.tensor(array.name.clone(), array.dtype.into(), array.shape.clone(), vec![array.extent])?;
        }
    }
    Ok(())
}

/// Whether a library is known that writes this scheme.
pub(crate) fn can_hold(scheme: SchemeRef) -> bool {
    writer(scheme.family()).is_some()
}

/// The library whose checkpoint a target will be; `None` if nothing in it is packed.
pub(crate) fn of(target: &Target) -> Result<Option<&'static dyn Library>, Error> {
    let mut chosen: Option<(&'static dyn Library, &str)> = None;
    for (tensor, packing) in packings(target) {
        let library = writer(packing.scheme.family());
        let library =
            library.ok_or_else(|| crate::safetensors::cannot_hold("safetensors", &tensor.element, &tensor.name))?;
        if let Some((before, first)) = chosen.filter(|(before, _)| before.name() != library.name()) {
            let message = format!(
                "one checkpoint belongs to one library: {first:?} would be {}'s and {:?} {}'s",
                before.name(),
                tensor.name,
                library.name()
            );
            return Err(Error::Layout(message));
        }
        chosen = Some((library, &tensor.name));
    }
    Ok(chosen.map(|(library, _)| library))
}

/// The arrays of one packed tensor, and how they are arranged.
pub(crate) fn store(
    library: &dyn Library,
    tensor: &TargetTensor,
    packing: &Packing,
) -> Result<(Vec<Stored>, Option<ArrangementRef>), Error> {
    let fail = |message: String| Error::Layout(format!("tensor {:?}: {message}", tensor.name));
    library.store(tensor, packing).map_err(fail)
}

/// Puts what config.json must say of a target's packed tensors into a layout.
pub(crate) fn describe(library: &dyn Library, target: &Target, layout: &mut Layout) -> Result<(), Error> {
    without_own_files(layout);
    let own = library.files(target).into_iter().map(|(name, content)| (name.to_string(), content));
    layout.files.extend(own);
    let config = layout.files.iter_mut().find(|(name, _)| name == "config.json");
    let missing = || Error::Layout(format!("a checkpoint of {} needs the model's config.json", library.name()));
    let (_, config) = config.ok_or_else(missing)?;
    let before = quantization(config).filter(|before| method(before) == Some(library.name()));
    let after = library.describe(target, before.as_ref());
    if before.as_ref() == Some(&after) {
        return Ok(());
    }
    if after.is_null() {
        return undescribe(config);
    }
    let text = serde_json::to_string(&after).map_err(|e| Error::Layout(e.to_string()))?;
    let add = [("quantization_config", text)];
    let edited = crate::json::edit(config, &["quantization_config"], &add, Limits::default().nesting);
    *config = edited.map_err(|message| Error::Layout(format!("config.json: {message}")))?;
    Ok(())
}

/// Takes away files that say of a source how it was packed.
pub(crate) fn without_own_files(layout: &mut Layout) {
    let own = |name: &str| libraries().any(|library| library.own_files().contains(&name));
    layout.files.retain(|(name, _)| !own(name));
}

/// Takes out of a config.json what it says of packing, where nothing is packed any more.
pub(crate) fn undescribe(config: &mut Vec<u8>) -> Result<(), Error> {
    let known = |json: &Json| libraries().any(|library| method(json) == Some(library.name()));
    if quantization(config).is_some_and(|before| known(&before)) {
        let edited = crate::json::edit(config, &["quantization_config"], &[], Limits::default().nesting);
        *config = edited.map_err(|message| Error::Layout(format!("config.json: {message}")))?;
    }
    Ok(())
}

fn quantization(config: &[u8]) -> Option<Json> {
    let limit = Limits::default().nesting;
    let member = crate::json::members(config, limit).ok()?.into_iter().find(|m| m.key == "quantization_config")?;
    serde_json::from_slice(config.get(member.value)?).ok()
}

fn method(quantization: &Json) -> Option<&str> {
    quantization.get("quant_method")?.as_str()
}

fn writer(family: Family) -> Option<&'static dyn Library> {
    libraries().find(|library| library.writes() == Some(family))
}

/// A tensor out of arrays that are called `prefix` and what the arrangement calls them. Types and shapes must be those that
/// the arrangement says.
fn arranged(
    checkpoint: &Checkpoint,
    name: String,
    prefix: &str,
    packing: Packing,
    arrangement: ArrangementRef,
    shape: Vec<usize>,
) -> Result<Joined, Problem> {
    let refuse = |message: String| Problem::new("bad-planes", message).tensor(&name);
    let mut planes = Vec::new();
    for array in arrangement.arrays(&packing, &shape).map_err(refuse)? {
        let (at, stored) = checkpoint.need(&format!("{prefix}{}", array.name), &name)?;
        same(&name, stored, array.dtype, &array.shape)?;
        planes.push(at);
    }
    let plain = checkpoint.find(&name);
    if plain.is_some_and(|at| !planes.contains(&at)) {
        return Err(refuse("is stored plain and packed".into()));
    }
    Ok(Joined { name, packing, shape, planes, arrangement: Some(arrangement), constants: Vec::new() })
}

/// Refuses an array of another type or shape; dimensions of one do not count.
fn same(tensor: &str, stored: &Raw, dtype: DType, shape: &[usize]) -> Result<(), Problem> {
    let counted = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<usize>>();
    if stored.dtype == dtype && counted(&stored.shape) == counted(shape) {
        return Ok(());
    }
    let message =
        format!("{}: expected {dtype} of shape {shape:?}, found {} of {:?}", stored.name, stored.dtype, stored.shape);
    Err(Problem::new("bad-planes", message).tensor(tensor).offset(stored.extent.offset))
}

/// The float type that config.json gives a model, F16 where it gives none.
fn float_type(config: &Json) -> DType {
    let text = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Json::as_str);
    match text {
        Some("bfloat16") => DType::BF16,
        Some("float32") => DType::F32,
        _ => DType::F16,
    }
}

/// The shape of an array whose bytes hold `times` values each.
fn wider(array: &Raw, times: usize, tensor: &str) -> Result<Vec<usize>, Problem> {
    let too_large = || {
        let message = format!("{}: shape {:?} is too large", array.name, array.shape);
        Problem::new("bad-shape", message).tensor(tensor)
    };
    let mut shape = array.shape.clone();
    if let Some(columns) = shape.last_mut() {
        *columns = columns.checked_mul(times).ok_or_else(too_large)?;
    }
    Ok(shape)
}

/// A scheme of a known library that is not known here.
fn unsupported(tensor: &str, scheme: &str) -> Problem {
    Problem::new("unsupported-scheme", format!("is packed as {scheme}, which is not known here"))
        .tensor(tensor)
        .help("`windlass schemes` lists what is")
}

/// The tensors of a target that are packed.
fn packings(target: &Target) -> impl Iterator<Item = (&TargetTensor, &Packing)> {
    target.tensors.iter().filter_map(|t| Some((t, write::packing(&t.element)?)))
}

/// Modules that hold a matrix that is not packed: transformers would expect them to be.
fn skipped(target: &Target) -> Json {
    let plain = target.tensors.iter().filter(|t| t.element.dtype().is_some() && t.shape.len() == 2);
    let modules = plain.filter_map(|t| t.name.strip_suffix(".weight")).filter(|name| !name.ends_with("embed_tokens"));
    let modules: Vec<&str> = modules.collect();
    if modules.is_empty() { Json::Null } else { modules.into() }
}

/// How PyTorch calls a float type.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::F32 => "float32",
        _ => "bfloat16",
    }
}

/// An array that holds a plane of `packing` for a tensor of `shape`.
fn plane(name: String, packing: &Packing, shape: &[usize], index: usize) -> Result<Stored, String> {
    let bytes = packing.plane_bytes(shape)?;
    let (plane, bytes) = packing.scheme.planes().get(index).zip(bytes.get(index)).ok_or("has too few planes")?;
    let stored = packing.scheme.plane_shape(index, shape);
    Ok(Stored { name, dtype: packing.plane_type(plane), shape: stored, bytes: *bytes, content: None })
}

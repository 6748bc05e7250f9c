//! MLX folders: safetensors (or the older `weights.npz`) with packed weights that config.json describes.
//!
//! MLX stores a packed matrix as arrays of their own, `X.weight`, `X.scales` and `X.biases`; here they are the planes of
//! one tensor `X.weight`.

use std::collections::HashMap;
use std::path::Path;

use windlass_catalog::Convention;
use windlass_quant::{Family, Packing};
use windlass_tensor::{DType, Element, Limits, PackedLayout, Value};

use crate::adapter;
use crate::arrays::Raw;
use crate::safetensors::folder::{self, Parts};
use crate::safetensors::write::{self, Stored};
use crate::{Container, Error, Extent, Layout, Probe, Problem, Source, SourceBuilder, Target, TargetTensor};

mod pack;
mod settings;

pub use settings::{Layer, Quantization, Setting, parse as parse_config};

const CONFIG: &str = "config.json";
const NPZ: &str = "weights.npz";

/// The container.
pub struct Mlx;

impl Container for Mlx {
    fn name(&self) -> &'static str {
        "mlx"
    }

    fn description(&self) -> &'static str {
        "MLX: a folder of config.json and safetensors (or weights.npz), plain or packed (affine, mxfp4, mxfp8, nvfp4), or an adapter"
    }

    fn convention(&self) -> Convention {
        Convention::Mlx
    }

    fn detect(&self, probe: &Probe) -> bool {
        let limits = Limits::default();
        if adapter::is_mlx(probe) {
            return true;
        }
        let safetensors = probe.files.iter().any(|name| name.ends_with(".safetensors"));
        if !probe.has(CONFIG) || !(safetensors || probe.has(NPZ)) {
            return false;
        }
        let config = crate::files::read_small(&probe.path.join(CONFIG), limits.side_file_bytes);
        let quantized = config.is_ok_and(|text| settings::is_quantized(&text, &limits));
        quantized || !safetensors || says_mlx(probe, &limits)
    }

    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error> {
        let mut builder = SourceBuilder::new(self.name(), "", path, limits);
        let config_path = path.join(CONFIG);
        if adapter::is_mlx(&Probe::new(path)?) {
            let raw = read_tensors(path, limits, &mut builder)?;
            pack::pack(path, raw, None, &mut builder)?;
            return Ok(builder.build());
        }
        let config = crate::files::read_small(&config_path, limits.side_file_bytes)?;
        let quantization = settings::parse(&config, limits).map_err(|p| Error::refused(&config_path, p))?;
        let raw = read_tensors(path, limits, &mut builder)?;
        pack::pack(path, raw, quantization.as_ref(), &mut builder)?;
        Ok(builder.build())
    }

    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error> {
        let mut problems = crate::safetensors::verify_folder(source, &folder::NAMING, limits)?;
        for part in source.parts().iter().filter(|part| part.path().ends_with(NPZ)) {
            problems.extend(crate::npz::verify_checksums(part.path(), limits)?);
        }
        Ok(problems)
    }

    fn can_hold(&self, element: &Element) -> bool {
        match element {
            Element::Plain(dtype) => PLAIN.contains(dtype),
            Element::Packed(_) => write::packing(element).is_some_and(|p| p.scheme.family() == Family::Mlx),
        }
    }

    fn layout(&self, target: &Target) -> Result<Layout, Error> {
        let mut metadata = target.metadata.clone();
        metadata.set("format", "mlx");
        let style = write::Style { folder: true, index_always: true, indent: 4, adapter: adapter::MLX_WEIGHTS };
        let mut layout = write::layout(target, &metadata, &style, |tensor| self.stored(tensor))?;
        if adapter::is_described(&layout.files) {
            return Ok(layout);
        }
        let config = layout.files.iter_mut().find(|(name, _)| name == CONFIG);
        let (_, config) = config.ok_or_else(|| Error::Layout("an mlx folder needs the model's config.json".into()))?;
        *config = describe(config, target)?;
        Ok(layout)
    }
}

/// Plain types that MLX has.
const PLAIN: [DType; 13] = [
    DType::Bool,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::C64,
];

impl Mlx {
    /// The arrays that a tensor is stored as.
    fn stored(&self, tensor: &TargetTensor) -> Result<Vec<Stored>, Error> {
        let fail = |message: String| Error::Layout(format!("tensor {:?}: {message}", tensor.name));
        if !self.can_hold(&tensor.element) {
            let mut can: Vec<String> = PLAIN.iter().map(|d| d.name().to_string()).collect();
            let schemes = windlass_quant::schemes().into_iter().filter(|s| s.family() == Family::Mlx);
            can.extend(schemes.map(|s| s.name().to_string()));
            let what = format!("{} (tensor {:?})", tensor.element.name(), tensor.name);
            return Err(Error::CannotHold { container: self.name(), what, can });
        }
        let Some(packing) = write::packing(&tensor.element) else {
            return Ok(vec![write::plain(tensor, tensor.element.dtype().unwrap_or(DType::U8))?]);
        };
        let module = tensor.name.strip_suffix(".weight");
        let module = module.ok_or_else(|| fail("MLX packs only tensors whose name ends in .weight".into()))?;
        let bytes = packing.plane_bytes(&tensor.shape).map_err(fail)?;
        let planes = packing.scheme.planes().iter().zip(bytes).enumerate();
        Ok(planes
            .map(|(i, (plane, bytes))| Stored {
                name: format!("{module}.{}", pack::array_name(plane.name)),
                dtype: packing.plane_type(plane),
                shape: packing.scheme.plane_shape(i, &tensor.shape),
                bytes,
                content: None,
            })
            .collect())
    }
}

/// Whether the first weights that can be read say that MLX wrote them.
fn says_mlx(probe: &Probe, limits: &Limits) -> bool {
    let first = match folder::find_parts(&probe.files, &folder::NAMING) {
        Ok(Parts::Named(names)) => names.into_iter().next(),
        Ok(Parts::Indexed) => probe.files.iter().find(|name| name.ends_with(".safetensors")).cloned(),
        _ => None,
    };
    let header = first.and_then(|name| folder::read_header(&probe.path.join(name), limits).ok());
    header.is_some_and(|(_, header)| header.metadata.get("format").and_then(Value::as_str) == Some("mlx"))
}

/// Reads what the weight files hold, one entry for each array.
fn read_tensors(path: &Path, limits: &Limits, builder: &mut SourceBuilder) -> Result<Vec<Raw>, Error> {
    let mut raw = Vec::new();
    let probe = Probe::new(path)?;
    if probe.has(NPZ) && !probe.files.iter().any(|name| name.ends_with(".safetensors")) {
        let (part, arrays) = crate::npz::read(&path.join(NPZ), limits, builder)?;
        raw.extend(arrays.into_iter().map(|array| {
            let extent = Extent { part, offset: array.offset, length: array.header.length };
            Raw { name: array.name, dtype: array.header.dtype, shape: array.header.shape, extent }
        }));
        folder::side_files(path, &probe.files, builder)?;
        return Ok(raw);
    }
    let headers = folder::read(path, limits, builder)?;
    for (part, (_, header)) in headers.parts.into_iter().enumerate() {
        raw.extend(header.tensors.into_iter().map(|tensor| {
            let extent = Extent { part, offset: tensor.offset, length: tensor.length };
            Raw { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, extent }
        }));
    }
    builder.metadata(headers.metadata);
    Ok(raw)
}

/// The text of config.json with what it says of quantization replaced by what the target's tensors are.
fn describe(config: &[u8], target: &Target) -> Result<Vec<u8>, Error> {
    let packed = target.tensors.iter().filter_map(|tensor| {
        let packing: &Packing = write::packing(&tensor.element)?;
        Some((tensor.name.strip_suffix(".weight")?, Setting::of_scheme(packing.scheme.name())?))
    });
    let packed: Vec<(&str, Setting)> = packed.collect();
    let mut add = Vec::new();
    if let Some(default) = most_common(&packed) {
        let others: Vec<_> = packed.iter().filter(|(_, s)| *s != default).cloned().collect();
        let text = Quantization::write(&default, &others);
        add = settings::KEYS.iter().map(|key| (*key, text.clone())).collect();
    }
    let edited = crate::json::edit(config, &settings::KEYS, &add, Limits::default().nesting);
    edited.map_err(|message| Error::Layout(format!("{CONFIG}: {message}")))
}

/// A config.json without what it says of MLX packing, if it says anything; as it was otherwise.
pub(crate) fn without_quantization(config: &[u8]) -> Vec<u8> {
    let limits = Limits::default();
    let keys: &[&str] = if settings::is_quantized(config, &limits) { &settings::KEYS } else { &[] };
    let edited = (!keys.is_empty()).then(|| crate::json::edit(config, keys, &[], limits.nesting).ok());
    edited.flatten().unwrap_or_else(|| config.to_vec())
}

/// The setting of most tensors; of those as common, the one that came first.
fn most_common(packed: &[(&str, Setting)]) -> Option<Setting> {
    let mut counts: HashMap<&Setting, usize> = HashMap::new();
    packed.iter().for_each(|(_, s)| *counts.entry(s).or_default() += 1);
    let most = counts.values().copied().max()?;
    packed.iter().map(|(_, s)| s).find(|s| counts.get(s) == Some(&most)).cloned()
}

//! bitsandbytes: NF4 and FP4 (absmax plain or quantized in turn), and LLM.int8, as transformers saves them.
//!
//! A 4-bit matrix `X.weight` has its codes in `X.weight`, `X.weight.absmax`, two code books and a JSON text in
//! `X.weight.quant_state.bitsandbytes__nf4`. An 8-bit one has `X.weight` and `X.SCB`.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_quant::arrange::{Arrangement, ArrangementRef, Array, Stored as Arrays};
use windlass_quant::{Family, Packing, SchemeRef, scheme};
use windlass_tensor::{DType, PackedLayout};

use super::{Joined, Library, float_type, packings, plane, skipped, torch_name};
use crate::arrays::{Checkpoint, Raw};
use crate::safetensors::write::Stored;
use crate::{Problem, Target, TargetTensor};

/// The library.
pub struct BitsAndBytes;

const STATE: &str = ".quant_state.bitsandbytes__";

/// The keys of `quantization_config` that say which scheme.
const SCHEME_KEYS: [&str; 3] = ["load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"];

/// Blocks of absmax that are quantized together.
const NESTED: u64 = 256;

/// Bytes of the JSON text of a double-quantized matrix: its length must not depend on the numbers in it.
const STATE_BYTES: usize = 256;

impl Library for BitsAndBytes {
    fn name(&self) -> &'static str {
        "bitsandbytes"
    }

    fn reads(&self) -> &'static [Family] {
        &[Family::BitsAndBytes]
    }

    fn detect(&self, checkpoint: &Checkpoint) -> bool {
        let marked = |array: &Raw| array.name.contains(STATE) || array.name.ends_with(".SCB");
        checkpoint.method() == Some(self.name()) || checkpoint.arrays.iter().any(marked)
    }

    fn join(&self, checkpoint: &Checkpoint) -> Result<Vec<Joined>, Problem> {
        let mut joined = Vec::new();
        for (at, array) in checkpoint.arrays.iter().enumerate() {
            if let Some((name, kind)) = array.name.split_once(STATE) {
                joined.push(four_bit(checkpoint, name, kind, at, array).map_err(|p| p.tensor(name))?);
            } else if let Some(module) = array.name.strip_suffix(".SCB") {
                joined.push(eight_bit(checkpoint, module, at)?);
            }
        }
        Ok(joined)
    }

    fn writes(&self) -> Option<Family> {
        Some(Family::BitsAndBytes)
    }

    fn store(&self, tensor: &TargetTensor, packing: &Packing) -> Result<(Vec<Stored>, Option<ArrangementRef>), String> {
        let (name, shape) = (&tensor.name, &tensor.shape);
        if shape.len() != 2 {
            return Err(format!("bitsandbytes packs matrices, not shape {shape:?}"));
        }
        if packing.scheme.name() == "int8" {
            let module =
                name.strip_suffix(".weight").ok_or("LLM.int8 packs only tensors whose name ends in .weight")?;
            let planes = [name.clone(), format!("{module}.SCB")].into_iter().enumerate();
            let mut stored = planes.map(|(i, name)| plane(name, packing, shape, i)).collect::<Result<Vec<_>, _>>()?;
            stored.push(Stored::constant(format!("{module}.weight_format"), DType::U8, Vec::new(), vec![0]));
            return Ok((stored, None));
        }
        let parts = FourBit::of(packing.scheme)?;
        let mut codes = plane(name.clone(), packing, shape, 0)?;
        codes.shape = vec![codes.bytes as usize, 1];
        let mut stored = vec![codes, flat(plane(format!("{name}.absmax"), packing, shape, 1)?)];
        let book = |name: String, book: Vec<f32>| {
            let bytes = book.iter().flat_map(|v| v.to_le_bytes()).collect();
            Stored::constant(name, DType::F32, vec![book.len()], bytes)
        };
        let state = format!("{name}{STATE}{}", parts.kind);
        let arrangement: Option<ArrangementRef> = if parts.nested {
            stored.push(flat(plane(format!("{name}.nested_absmax"), packing, shape, 2)?));
            let bytes = STATE_BYTES as u64;
            stored.push(Stored { name: state, dtype: DType::U8, shape: vec![STATE_BYTES], bytes, content: None });
            let map = windlass_quant::bnb::dynamic_map().to_vec();
            stored.push(book(format!("{name}.nested_quant_map"), map));
            Some(Arc::new(Nested { offset: None }))
        } else {
            let text = parts.describe(packing.float, shape, None).into_bytes();
            stored.push(Stored::constant(state, DType::U8, vec![text.len()], text));
            None
        };
        stored.push(book(format!("{name}.quant_map"), parts.book().to_vec()));
        Ok((stored, arrangement))
    }

    fn describe(&self, target: &Target, before: Option<&Json>) -> Json {
        let packed: Vec<(&TargetTensor, &Packing)> = packings(target).collect();
        let eight = packed.iter().any(|(_, p)| p.scheme.name() == "int8");
        let four = packed.iter().find_map(|(_, p)| FourBit::of(p.scheme).ok());
        let compute = packed.first().map_or(DType::BF16, |(_, p)| p.float);
        let new = json!({
            "_load_in_4bit": !eight,
            "_load_in_8bit": eight,
            "bnb_4bit_compute_dtype": torch_name(compute),
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": four.as_ref().map_or("fp4", |f| f.kind),
            "bnb_4bit_use_double_quant": four.is_some_and(|f| f.nested),
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skipped(target),
            "llm_int8_threshold": 6.0,
            "load_in_4bit": !eight,
            "load_in_8bit": eight,
            "quant_method": "bitsandbytes",
        });
        // What the source said holds as long as the schemes are the same.
        let same = |key: &str| before.is_some_and(|before| before.get(key) == new.get(key));
        match before {
            Some(before) if SCHEME_KEYS.iter().all(|key| same(key)) => before.clone(),
            _ => new,
        }
    }
}

fn flat(mut stored: Stored) -> Stored {
    stored.shape = vec![stored.shape.iter().product()];
    stored
}

/// What the name of a 4-bit scheme says.
struct FourBit {
    kind: &'static str,
    block: usize,
    nested: bool,
}

impl FourBit {
    fn of(scheme: SchemeRef) -> Result<FourBit, String> {
        let kind = match scheme.name().get(..3) {
            Some("nf4") => "nf4",
            Some("fp4") => "fp4",
            _ => return Err(format!("{} is not a scheme of bitsandbytes", scheme.name())),
        };
        Ok(FourBit { kind, block: scheme.block(), nested: scheme.name().ends_with("-dq") })
    }

    /// The values of its codes.
    fn book(&self) -> &'static [f32] {
        windlass_quant::bnb::values(self.kind == "nf4")
    }

    /// The text of `quant_state`, spelled as Python writes it.
    fn describe(&self, float: DType, shape: &[usize], offset: Option<f32>) -> String {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let nested = offset.map_or(String::new(), |offset| {
            let offset = json!(f64::from(offset));
            format!(", \"nested_blocksize\": {NESTED}, \"nested_dtype\": \"float32\", \"nested_offset\": {offset}")
        });
        format!(
            "{{\"quant_type\": \"{}\", \"blocksize\": {}, \"dtype\": \"{}\", \"shape\": [{}]{nested}}}",
            self.kind,
            self.block,
            torch_name(float),
            shape.join(", ")
        )
    }
}

fn four_bit(checkpoint: &Checkpoint, name: &str, kind: &str, at: usize, state: &Raw) -> Result<Joined, Problem> {
    let json = checkpoint.read_json(state)?;
    let refuse = |message: String| Problem::new("bad-quant-state", message);
    let text = |key: &str| json.get(key).and_then(Json::as_str);
    let number = |key: &str| json.get(key).and_then(Json::as_u64);
    let kind = text("quant_type").unwrap_or(kind);
    let block = number("blocksize").ok_or_else(|| refuse("its quant_state has no blocksize".into()))?;
    let shape = json
        .get("shape")
        .and_then(Json::as_array)
        .and_then(|shape| shape.iter().map(|d| usize::try_from(d.as_u64()?).ok()).collect::<Option<Vec<usize>>>());
    let shape =
        shape.filter(|s| s.len() == 2).ok_or_else(|| refuse("its quant_state has no shape of a matrix".into()))?;
    let float = match text("dtype") {
        Some("bfloat16") => DType::BF16,
        Some("float16") => DType::F16,
        Some("float32") => DType::F32,
        other => return Err(refuse(format!("its quant_state has dtype {other:?}, expected a float type"))),
    };
    let nested = number("nested_blocksize");
    if nested.is_some_and(|n| n != NESTED) {
        return Err(refuse(format!("its absmax are quantized in blocks of {nested:?}, expected {NESTED}")));
    }
    let size = if block == 64 { String::new() } else { format!("-b{block}") };
    let full = format!("{kind}{size}{}", if nested.is_some() { "-dq" } else { "" });
    let known = scheme(&full).map_err(|_| {
        Problem::new("unsupported-scheme", format!("bitsandbytes' {kind} with blocks of {block} is not known here"))
    })?;
    let packing = Packing { scheme: known, float };
    let mut constants = vec![at];
    check_book(checkpoint, &format!("{name}.quant_map"), FourBit::of(known).map_err(refuse)?.book(), &mut constants)?;
    let mut planes = vec![checkpoint.need(name, name)?.0, checkpoint.need(&format!("{name}.absmax"), name)?.0];
    let mut arrangement: Option<ArrangementRef> = None;
    if nested.is_some() {
        planes.push(checkpoint.need(&format!("{name}.nested_absmax"), name)?.0);
        let map = windlass_quant::bnb::dynamic_map();
        check_book(checkpoint, &format!("{name}.nested_quant_map"), map, &mut constants)?;
        let offset = json.get("nested_offset").and_then(Json::as_f64);
        let offset = offset.ok_or_else(|| refuse("its quant_state has no nested_offset".into()))?;
        arrangement = Some(Arc::new(Nested { offset: Some(offset as f32) }));
    }
    Ok(Joined { name: name.into(), packing, shape, planes, arrangement, constants })
}

/// A code book that is there must be the one the scheme has.
fn check_book(
    checkpoint: &Checkpoint,
    name: &str,
    expected: &[f32],
    constants: &mut Vec<usize>,
) -> Result<(), Problem> {
    let Some(at) = checkpoint.find(name) else { return Ok(()) };
    constants.push(at);
    let Some(array) = checkpoint.arrays.get(at) else { return Ok(()) };
    let bytes = checkpoint.read(array)?;
    let same = bytes.len() == expected.len() * 4
        && array.dtype == DType::F32
        && bytes.chunks_exact(4).zip(expected).all(|(b, e)| b == e.to_le_bytes());
    if same {
        return Ok(());
    }
    let message = "is not the code book of its scheme: the matrix was quantized with another";
    Err(Problem::new("bad-code-book", message).tensor(name).offset(array.extent.offset))
}

fn eight_bit(checkpoint: &Checkpoint, module: &str, scales: usize) -> Result<Joined, Problem> {
    let name = format!("{module}.weight");
    let (at, weight) = checkpoint.need(&name, &name)?;
    if weight.dtype != DType::I8 || weight.shape.len() != 2 {
        let message =
            format!("has row scales (SCB), so it should be an I8 matrix, not {} {:?}", weight.dtype, weight.shape);
        return Err(Problem::new("wrong-type", message).tensor(&name));
    }
    let mut constants = Vec::new();
    if let Some(format) = checkpoint.find(&format!("{module}.weight_format")) {
        let array = checkpoint.arrays.get(format);
        if let Some(array) = array.filter(|a| a.extent.length <= 8)
            && checkpoint.read(array)?.iter().any(|b| *b != 0)
        {
            let message = "is stored in a tiled order of a GPU (weight_format is not 0)";
            let help = "load it with transformers on such a GPU and save it again";
            return Err(Problem::new("unsupported-scheme", message).tensor(&name).help(help));
        }
        constants.push(format);
    }
    let scheme = scheme("int8").map_err(|e| Problem::new("unsupported-scheme", e.to_string()).tensor(&name))?;
    let float = float_type(checkpoint.config);
    let (packing, shape) = (Packing { scheme, float }, weight.shape.clone());
    Ok(Joined { name, packing, shape, planes: vec![at, scales], arrangement: None, constants })
}

/// Planes in arrays of their own, but for the offset of the absmax, which is a number in the JSON text.
struct Nested {
    /// As it was read; a target's comes with its planes.
    offset: Option<f32>,
}

impl Arrangement for Nested {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let planes = packing.scheme.planes().iter().take(3).enumerate();
        let array = |(i, plane): (usize, &windlass_quant::Plane)| Array {
            name: plane.name,
            dtype: packing.plane_type(plane),
            shape: packing.scheme.plane_shape(i, shape),
        };
        let mut arrays: Vec<Array> = planes.map(array).collect();
        if self.offset.is_none() {
            arrays.push(Array { name: "quant_state", dtype: DType::U8, shape: vec![STATE_BYTES] });
        }
        Ok(arrays)
    }

    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Arrays,
        planes: &mut [&mut [u8]],
    ) -> io::Result<()> {
        let columns = shape.last().copied().unwrap_or(1);
        let ranges = packing.plane_ranges(columns, rows.start, rows.len()).map_err(io::Error::other)?;
        for (i, (plane, (offset, _))) in planes.iter_mut().zip(&ranges).take(3).enumerate() {
            stored.read(i, *offset, plane)?;
        }
        if let (Some(plane), Some(offset)) = (planes.get_mut(3), self.offset) {
            plane.copy_from_slice(&offset.to_le_bytes());
        }
        Ok(())
    }

    fn can_scatter(&self) -> bool {
        self.offset.is_none()
    }

    fn scatter(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        planes: &[&[u8]],
        stored: &dyn Arrays,
    ) -> io::Result<()> {
        let columns = shape.last().copied().unwrap_or(1);
        let ranges = packing.plane_ranges(columns, rows.start, rows.len()).map_err(io::Error::other)?;
        for (i, (plane, (offset, _))) in planes.iter().zip(&ranges).take(3).enumerate() {
            stored.write(i, *offset, plane)?;
        }
        let offset = planes.get(3).and_then(|plane| plane.first_chunk::<4>()).map(|bytes| f32::from_le_bytes(*bytes));
        let (true, Some(offset)) = (rows.start == 0, offset) else { return Ok(()) };
        let parts = FourBit::of(packing.scheme).map_err(io::Error::other)?;
        let mut text = parts.describe(packing.float, shape, Some(offset)).into_bytes();
        // White space after a JSON value means nothing.
        text.resize(STATE_BYTES.max(text.len()), b' ');
        stored.write(3, 0, &text)
    }
}

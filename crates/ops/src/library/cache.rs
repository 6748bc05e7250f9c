//! Caches of keys and values.

use std::sync::OnceLock;

use windlass_quant::SchemeRef;
use windlass_tensor::{DType, Element, Tensor};

use crate::op::{Input, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Tolerance};

/// The scheme that a cache may have: 34 bytes for 32 values.
const PACKED: &str = "q8_0";

/// The scheme of this name, if a cache may have it.
fn packed(name: &str) -> Option<SchemeRef> {
    static SCHEME: OnceLock<Option<SchemeRef>> = OnceLock::new();
    if name == PACKED { *SCHEME.get_or_init(|| windlass_quant::scheme(PACKED).ok()) } else { None }
}

/// Puts rows of tokens into a cache of `[heads, context, head_dim]`.
pub static CACHE_WRITE: Op = Op {
    name: "cache_write",
    about: "the cache with the heads of x from position start on; the rest of it as it is",
    inputs: &[Input::new("x")],
    attributes: &[
        Attribute::required("heads"),
        Attribute::required("context"),
        Attribute::required("start"),
        Attribute::text("to", "F32"),
    ],
    outputs: |q| {
        let (x, heads, context) = (q.shape(0)?, q.int("heads")?, q.int("context")?);
        let [tokens, width] = x else { return q.fail(format!("x must be [tokens, heads * head_dim], not {x:?}")) };
        let end = q.int("start")?.saturating_add(*tokens);
        if heads == 0 || width % heads != 0 || end > context {
            return q.fail(format!("{tokens} tokens of {heads} heads do not end at {end} in a cache of {context}"));
        }
        let shape = [heads, context, width / heads];
        if let Some(scheme) = packed(q.text("to")?) {
            return match shape[2].is_multiple_of(scheme.block()) {
                true => Ok(vec![OutputSpec::packed(scheme, shape).zeroed()]),
                false => q.fail(format!("heads of {} values are not whole blocks of {PACKED}", shape[2])),
            };
        }
        let dtype = DType::from_name(q.text("to")?).filter(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
        let Some(dtype) = dtype else { return q.fail(format!("a cache is F32, F16, BF16 or {PACKED}")) };
        Ok(vec![OutputSpec::new(dtype, shape).zeroed()])
    },
    reference,
    gradient: Gradient::Refused("a cache has no gradient; `sequence_attention` has one"),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let how = |to| Attributes::new().int("heads", 2).int("context", 9).int("start", 4).text("to", to);
        let rows = |name, to| Profile::new(name).normal(&[3, 24]).attributes(how(to));
        let packed = Profile::new("q8_0").normal(&[3, 64]).attributes(how(PACKED));
        vec![rows("f32", "F32"), rows("f16", "F16"), rows("bf16", "BF16"), packed]
    },
};

fn reference(args: &mut Args) -> Result<(), Error> {
    let (x, q) = (args.f32s(0)?, args.inquiry());
    let (heads, context, start) = (q.int("heads")?, q.int("context")?, q.int("start")?);
    let dim = args.inputs[0].shape().columns() / heads;
    let target = Row::of(&args.outputs[0], dim);
    let wrong = Error::Argument { op: args.op.name, message: "the cache is shared".into() };
    let mut planes = args.outputs[0].planes_mut().ok_or(wrong)?;
    let Some(cache) = planes.first_mut() else { return Ok(()) };
    for (token, row) in x.chunks_exact((heads * dim).max(1)).enumerate() {
        for (head, values) in row.chunks_exact(dim.max(1)).enumerate() {
            let at = (head * context + start + token) * target.bytes;
            target.write(values, &mut cache[at..at + target.bytes])?;
        }
    }
    Ok(())
}

/// How a cache holds the values of a head of one token.
#[derive(Clone, Copy)]
pub struct Row {
    dtype: DType,
    scheme: Option<SchemeRef>,
    pub bytes: usize,
}

impl Row {
    /// The rows of a cache, of `dim` values each.
    pub fn of(cache: &Tensor, dim: usize) -> Row {
        match cache.element() {
            Element::Plain(dtype) => Row { dtype: *dtype, scheme: None, bytes: dim * dtype.size() },
            Element::Packed(packing) => {
                let bytes = packing.plane_bytes(&[1, dim]).unwrap_or_default().iter().sum::<u64>() as usize;
                let scheme = packed(packing.name());
                Row { dtype: DType::F32, scheme, bytes }
            }
        }
    }

    /// Writes the values of a row into its bytes.
    pub fn write(&self, values: &[f32], out: &mut [u8]) -> Result<(), Error> {
        let written = match self.scheme {
            Some(scheme) => scheme.encode(values, values.len(), None, DType::F32, &mut [out]),
            None => windlass_quant::float::from_f32(self.dtype, values, out),
        };
        written.map_err(|source| Error::Quant { op: CACHE_WRITE.name, source })
    }
}

/// Writes `x` `[tokens, heads * head_dim]` into `cache` `[heads, context, head_dim]` from position `start` on. Nobody
/// else may hold the cache.
pub fn cache_write(cx: &Context, x: &Tensor, cache: &mut Tensor, start: usize) -> Result<(), Error> {
    let [heads, context, _] = cache.shape()[..] else {
        let message = format!("a cache is [heads, context, head_dim], not {:?}", cache.shape());
        return Err(Error::Argument { op: CACHE_WRITE.name, message });
    };
    let to = match cache.element() {
        Element::Plain(dtype) => dtype.name(),
        Element::Packed(packing) if packing.name() == PACKED => PACKED,
        Element::Packed(_) => "another scheme",
    };
    let attributes = Attributes::new().int("heads", heads).int("context", context).int("start", start).text("to", to);
    cx.call_into(&CACHE_WRITE, &[x], &attributes, std::slice::from_mut(cache))
}

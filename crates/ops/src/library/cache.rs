//! Caches of keys and values.

use windlass_tensor::{DType, Tensor};

use crate::op::{Input, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Tolerance};

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
        let dtype = DType::from_name(q.text("to")?).filter(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
        let Some(dtype) = dtype else { return q.fail("a cache is F32, F16 or BF16") };
        Ok(vec![OutputSpec::new(dtype, [heads, context, width / heads]).zeroed()])
    },
    reference,
    gradient: Gradient::Refused("a cache has no gradient; `sequence_attention` has one"),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let how = |to| Attributes::new().int("heads", 2).int("context", 9).int("start", 4).text("to", to);
        let rows = |name, to| Profile::new(name).normal(&[3, 24]).attributes(how(to));
        vec![rows("f32", "F32"), rows("f16", "F16"), rows("bf16", "BF16")]
    },
};

fn reference(args: &mut Args) -> Result<(), Error> {
    let (x, q) = (args.f32s(0)?, args.inquiry());
    let (heads, context, start) = (q.int("heads")?, q.int("context")?, q.int("start")?);
    let dim = args.inputs[0].shape().columns() / heads;
    let dtype = args.outputs[0].element().dtype().unwrap_or(DType::F32);
    let wrong = Error::Argument { op: args.op.name, message: "the cache is shared".into() };
    let cache = args.outputs[0].bytes_mut().ok_or(wrong)?;
    for (token, row) in x.chunks_exact((heads * dim).max(1)).enumerate() {
        for (head, values) in row.chunks_exact(dim.max(1)).enumerate() {
            let at = (head * context + start + token) * dim * dtype.size();
            let out = &mut cache[at..at + dim * dtype.size()];
            windlass_quant::float::from_f32(dtype, values, out)
                .map_err(|source| Error::Quant { op: "cache_write", source })?;
        }
    }
    Ok(())
}

/// Writes `x` `[tokens, heads * head_dim]` into `cache` `[heads, context, head_dim]` from position `start` on. Nobody
/// else may hold the cache.
pub fn cache_write(cx: &Context, x: &Tensor, cache: &mut Tensor, start: usize) -> Result<(), Error> {
    let [heads, context, _] = cache.shape()[..] else {
        let message = format!("a cache is [heads, context, head_dim], not {:?}", cache.shape());
        return Err(Error::Argument { op: CACHE_WRITE.name, message });
    };
    let to = cache.element().dtype().unwrap_or(DType::F32).name();
    let attributes = Attributes::new().int("heads", heads).int("context", context).int("start", start).text("to", to);
    cx.call_into(&CACHE_WRITE, &[x], &attributes, std::slice::from_mut(cache))
}

//! Attention over a cache of keys and values.

use windlass_tensor::{DType, Tensor};

use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Kind, Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Tolerance};

/// Scaled dot-product attention (arXiv 1706.03762) with grouped heads, over a cache.
pub static ATTENTION: Op = Op {
    name: "attention",
    about: "softmax(scale * q k^T) v for each head; query i is at position start + i",
    // q [tokens, heads * head_dim]; keys and values [kv_heads, context, head_dim].
    inputs: &[Input::new("q"), Input::packed("keys"), Input::packed("values")],
    attributes: &[
        Attribute::required("start"),
        Attribute::required("scale"),
        Attribute::bool("causal", true),
        // A query sees this many positions up to its own; 0: all.
        Attribute::int("window", 0),
        // Scores s become cap * tanh(s / cap); 0: as they are.
        Attribute::float("soft_cap", 0.0),
    ],
    outputs,
    reference,
    gradient: Gradient::Refused("a cache has no gradient; `sequence_attention` has one"),
    tolerance: Tolerance { relative: 1e-3, absolute: 1e-4 },
    profiles: |_| {
        let how = |start: usize| Attributes::new().int("start", start).float("scale", 0.25);
        let cached = |name, tokens, context| {
            Profile::new(name).normal(&[tokens, 4 * 16]).normal(&[2, context, 16]).normal(&[2, context, 16])
        };
        let packed = |name, tokens, context| {
            let cache = || Sample::normal(&[2, context, 64]).kind(Kind::Packed("q8_0"));
            Profile::new(name).normal(&[tokens, 4 * 64]).with(cache()).with(cache())
        };
        vec![
            cached("one token", 1, 40).attributes(how(37)),
            cached("prompt", 17, 20).attributes(how(0)),
            cached("window", 9, 70).attributes(how(50).int("window", 13)),
            cached("soft cap", 3, 33).attributes(how(30).float("soft_cap", 5.0)),
            cached("both ways", 6, 6).attributes(how(0).bool("causal", false)),
            cached("long", 33, 300).attributes(how(260)),
            packed("packed token", 1, 300).attributes(how(280)),
            packed("packed prompt", 19, 70).attributes(how(40)),
        ]
    },
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (query, keys, values) = (q.shape(0)?, q.shape(1)?, q.shape(2)?);
    let ([tokens, width], [kv_heads, context, dim]) = (query, keys) else {
        return q.fail(format!(
            "expected q [tokens, heads * head_dim] and keys [heads, context, head_dim], found {query:?} and {keys:?}"
        ));
    };
    if keys != values || kv_heads * dim == 0 || width % (kv_heads * dim) != 0 {
        return q.fail(format!("q {query:?}, keys {keys:?} and values {values:?} do not go together"));
    }
    if q.int("start")?.saturating_add(*tokens) > *context {
        return q.fail(format!("{tokens} tokens from {} do not fit a cache of {context}", q.int("start")?));
    }
    Ok(vec![OutputSpec::new(DType::F32, query)])
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let (query, keys, values) = (args.f32s(0)?, args.f32s(1)?, args.f32s(2)?);
    let how = Attention::of(&args.inquiry())?;
    let [tokens, width] = args.inputs[0].shape()[..] else { return Ok(()) };
    let [kv_heads, context, dim] = args.inputs[1].shape()[..] else { return Ok(()) };
    let group = width / dim / kv_heads;
    let mut out = vec![0.0f32; query.len()];
    for token in 0..tokens {
        let seen = how.seen(token, tokens);
        for head in 0..width / dim {
            let q = &query[token * width + head * dim..][..dim];
            let row = |at: usize| (head / group * context + at) * dim;
            let score = |at: usize| {
                let k = &keys[row(at)..][..dim];
                let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let scaled = dot * f64::from(how.scale);
                if how.soft_cap > 0.0 {
                    f64::from(how.soft_cap) * (scaled / f64::from(how.soft_cap)).tanh()
                } else {
                    scaled
                }
            };
            let scores: Vec<f64> = seen.clone().map(score).collect();
            let max = scores.iter().fold(f64::NEG_INFINITY, |max, s| max.max(*s));
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (i, out) in out[token * width + head * dim..][..dim].iter_mut().enumerate() {
                let each = seen.clone().zip(&weights);
                let value = |(at, w): (usize, &f64)| w * f64::from(values[row(at) + i]);
                *out = (each.map(value).sum::<f64>() / sum) as f32;
            }
        }
    }
    args.write(0, &out)
}

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Position of the first query.
    pub start: usize,
    /// Of the products of queries and keys.
    pub scale: f32,
    pub causal: bool,
    /// Positions that a query sees, up to its own; 0: all.
    pub window: usize,
    /// Scores s become cap * tanh(s / cap); 0: as they are.
    pub soft_cap: f32,
}

impl Attention {
    /// As a call says.
    pub fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self {
            start: q.int("start")?,
            scale: q.float("scale")? as f32,
            causal: q.bool("causal")?,
            window: q.int("window")?,
            soft_cap: q.float("soft_cap")? as f32,
        })
    }

    /// The positions that query `token` of `tokens` sees.
    pub fn seen(&self, token: usize, tokens: usize) -> std::ops::Range<usize> {
        let end = self.start + if self.causal { token + 1 } else { tokens };
        let own = self.start + token + 1;
        (if self.window > 0 { own.saturating_sub(self.window) } else { 0 })..end
    }
}

/// Attention of queries `[tokens, heads * head_dim]` (F32) over `keys` and `values` `[kv_heads, context, head_dim]`,
/// which hold positions up to those of the queries.
pub fn attention(cx: &Context, q: &Tensor, keys: &Tensor, values: &Tensor, how: &Attention) -> Result<Tensor, Error> {
    let attributes = Attributes::new()
        .int("start", how.start)
        .float("scale", how.scale.into())
        .bool("causal", how.causal)
        .int("window", how.window)
        .float("soft_cap", how.soft_cap.into());
    cx.one(&ATTENTION, &[q, keys, values], &attributes)
}

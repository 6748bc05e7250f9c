//! Attention within sequences that stand one after the other: what training uses, with its gradient.

use windlass_tensor::{DType, Tensor};

use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Kind, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

const ATTRIBUTES: &[Attribute] = &[
    Attribute::required("head_dim"),
    Attribute::required("scale"),
    Attribute::bool("causal", true),
    // A query sees this many positions up to its own; 0: all of its sequence.
    Attribute::int("window", 0),
    // Scores s become cap * tanh(s / cap); 0: as they are.
    Attribute::float("soft_cap", 0.0),
];

/// Scaled dot-product attention with grouped heads; tokens see those of their own sequence only.
pub static SEQUENCE_ATTENTION: Op = Op {
    name: "sequence_attention",
    about: "softmax(scale * q k^T) v for each head within each sequence, and log(sum(exp)) of its scores",
    // q [tokens, heads * head_dim]; k and v [tokens, kv_heads * head_dim]; sequence i is of tokens
    // bounds[i]..bounds[i + 1].
    inputs: &[Input::new("q"), Input::new("k"), Input::new("v"), Input::new("bounds")],
    attributes: ATTRIBUTES,
    outputs,
    reference: forward,
    gradient: Gradient::rule(
        |_, _| Reads::inputs_from(0).and(Reads::output(0)).and(Reads::output(1)),
        |b: &Backward| {
            if b.gradients.get(1).is_some_and(Option::is_some) {
                return b.fail("the logarithms of sums have no gradient");
            }
            let inputs =
                [b.input(0)?, b.input(1)?, b.input(2)?, b.input(3)?, b.output(0)?, b.output(1)?, b.gradient()?];
            let flowed = b.cx.call(&SEQUENCE_ATTENTION_BACKWARD, &inputs, b.attributes)?;
            Ok(flowed.into_iter().map(Some).chain([None]).collect())
        },
    ),
    tolerance: Tolerance { relative: 1e-3, absolute: 1e-4 },
    profiles: |_| profiles(false),
};

/// The gradients of [`SEQUENCE_ATTENTION`] for queries, keys and values.
pub static SEQUENCE_ATTENTION_BACKWARD: Op = Op {
    name: "sequence_attention_backward",
    about: "what flows back through sequence_attention, whose weights are computed again from log(sum(exp))",
    inputs: &[
        Input::new("q"),
        Input::new("k"),
        Input::new("v"),
        Input::new("bounds"),
        Input::new("out"),
        Input::new("sums"),
        Input::new("gradient"),
    ],
    attributes: ATTRIBUTES,
    outputs: |q| {
        let specs = outputs(q)?;
        if q.shape(4)? != q.shape(0)? || q.shape(6)? != q.shape(0)? || q.shape(5)? != specs[1].shape {
            return q.fail("out, sums and gradient are not those of q");
        }
        let dtype = specs[0].dtype;
        (0..3).map(|i| Ok(OutputSpec::new(dtype, q.shape(i)?))).collect()
    },
    reference: backward,
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance { relative: 1e-3, absolute: 2e-4 },
    profiles: |_| profiles(true),
};

/// How the call's heads are laid out and its scores are made.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub scale: f64,
    pub causal: bool,
    pub window: usize,
    pub soft_cap: f64,
}

impl Heads {
    /// As a call says.
    pub fn of(q: &Inquiry) -> Result<Self, Error> {
        let (query, keys, values, dim) = (q.shape(0)?, q.shape(1)?, q.shape(2)?, q.int("head_dim")?);
        let ([tokens, width], [key_tokens, key_width]) = (query, keys) else {
            return q.fail(format!("q and k must be matrices, not {query:?} and {keys:?}"));
        };
        let fits = dim > 0 && width % dim == 0 && key_width % dim == 0 && *key_width > 0 && width % key_width == 0;
        if !fits || keys != values || tokens != key_tokens {
            return q.fail(format!("q {query:?}, k {keys:?} and v {values:?} do not go together in heads of {dim}"));
        }
        Ok(Self {
            heads: width / dim,
            kv_heads: key_width / dim,
            dim,
            scale: q.float("scale")?,
            causal: q.bool("causal")?,
            window: q.int("window")?,
            soft_cap: q.float("soft_cap")?,
        })
    }

    /// The tokens that `token` of the sequence `within` sees.
    pub fn seen(&self, token: usize, within: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let start = if self.window > 0 { (token + 1).saturating_sub(self.window) } else { 0 };
        start.max(within.start)..if self.causal { token + 1 } else { within.end }
    }

    /// The score of a product, and its derivative.
    pub fn score(&self, product: f64) -> (f64, f64) {
        let scaled = product * self.scale;
        if self.soft_cap <= 0.0 {
            return (scaled, self.scale);
        }
        let bent = (scaled / self.soft_cap).tanh();
        (self.soft_cap * bent, self.scale * (1.0 - bent * bent))
    }
}

/// The sequences that a call's `bounds` gives: rising from 0 to the number of tokens.
pub fn sequences(args: &Args, index: usize) -> Result<Vec<std::ops::Range<usize>>, Error> {
    let (bounds, tokens) = (args.ints(index)?, args.inputs[0].shape().dims()[0] as i64);
    let rising = bounds.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising || bounds.first() != Some(&0) || bounds.last() != Some(&tokens) {
        return args.inquiry().fail(format!("bounds must rise from 0 to {tokens}, found {bounds:?}"));
    }
    Ok(bounds.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (heads, tokens) = (Heads::of(q)?, q.shape(0)?[0]);
    let dtype = if q.like(0)?.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(vec![OutputSpec::new(dtype, q.shape(0)?), OutputSpec::new(dtype, [heads.heads, tokens])])
}

fn forward(args: &mut Args) -> Result<(), Error> {
    let (how, sequences) = (Heads::of(&args.inquiry())?, sequences(args, 3)?);
    let (q, k, v) = (args.numbers(0)?, args.numbers(1)?, args.numbers(2)?);
    let tokens = args.inputs[0].shape().dims()[0];
    let (mut out, mut sums) = (vec![0.0; q.len()], vec![0.0; how.heads * tokens]);
    each(&how, &sequences, |head, token, seen| {
        let query = part(&q, &how, how.heads, token, head);
        let kv = head / (how.heads / how.kv_heads);
        let scores: Vec<f64> =
            seen.clone().map(|at| how.score(dot(query, part(&k, &how, how.kv_heads, at, kv))).0).collect();
        let sum = super::reduce::logsumexp(&scores);
        sums[head * tokens + token] = sum;
        let out = &mut out[(token * how.heads + head) * how.dim..][..how.dim];
        for (at, score) in seen.zip(&scores) {
            let weight = (score - sum).exp();
            let values = part(&v, &how, how.kv_heads, at, kv);
            out.iter_mut().zip(values).for_each(|(out, v)| *out += weight * v);
        }
    });
    args.write_numbers(0, &out)?;
    args.write_numbers(1, &sums)
}

fn backward(args: &mut Args) -> Result<(), Error> {
    let (how, sequences) = (Heads::of(&args.inquiry())?, sequences(args, 3)?);
    let (q, k, v) = (args.numbers(0)?, args.numbers(1)?, args.numbers(2)?);
    let (out, sums, gradient) = (args.numbers(4)?, args.numbers(5)?, args.numbers(6)?);
    let tokens = args.inputs[0].shape().dims()[0];
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    each(&how, &sequences, |head, token, seen| {
        let (query, g) = (part(&q, &how, how.heads, token, head), part(&gradient, &how, how.heads, token, head));
        let kv = head / (how.heads / how.kv_heads);
        let delta = dot(g, part(&out, &how, how.heads, token, head));
        for at in seen {
            let (key, value) = (part(&k, &how, how.kv_heads, at, kv), part(&v, &how, how.kv_heads, at, kv));
            let (score, slope) = how.score(dot(query, key));
            let weight = (score - sums[head * tokens + token]).exp();
            let flowed = weight * (dot(g, value) - delta) * slope;
            let to = |all: &mut Vec<f64>, heads, token, head, from: &[f64], by: f64| {
                let all = &mut all[(token * heads + head) * how.dim..][..how.dim];
                all.iter_mut().zip(from).for_each(|(all, from)| *all += by * from);
            };
            to(&mut dq, how.heads, token, head, key, flowed);
            to(&mut dk, how.kv_heads, at, kv, query, flowed);
            to(&mut dv, how.kv_heads, at, kv, g, weight);
        }
    });
    args.write_numbers(0, &dq)?;
    args.write_numbers(1, &dk)?;
    args.write_numbers(2, &dv)
}

/// Calls `work` with every head, token and the tokens that it sees.
fn each(how: &Heads, sequences: &[std::ops::Range<usize>], mut work: impl FnMut(usize, usize, std::ops::Range<usize>)) {
    for sequence in sequences {
        for head in 0..how.heads {
            sequence.clone().for_each(|token| work(head, token, how.seen(token, sequence)));
        }
    }
}

fn part<'a>(all: &'a [f64], how: &Heads, heads: usize, token: usize, head: usize) -> &'a [f64] {
    &all[(token * heads + head) * how.dim..][..how.dim]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn profiles(back: bool) -> Vec<Profile> {
    let case = |name, sequences: usize, length: usize, how: Attributes| {
        let tokens = sequences * length;
        let [q, kv] = [[tokens, 4 * 16], [tokens, 2 * 16]];
        let bounds = Sample::normal(&[sequences + 1]).fill(Fill::Steps(length as u64)).kind(Kind::Fixed(DType::I64));
        let profile = Profile::new(name).normal(&q).normal(&kv).normal(&kv).with(bounds);
        let profile = if back { profile.normal(&q).normal(&[4, tokens]).normal(&q) } else { profile };
        profile.attributes(how.int("head_dim", 16).float("scale", 0.25))
    };
    vec![
        case("one", 1, 1, Attributes::new()),
        case("two sequences", 2, 9, Attributes::new()),
        case("window", 2, 20, Attributes::new().int("window", 7)),
        case("soft cap", 1, 12, Attributes::new().float("soft_cap", 5.0)),
        case("both ways", 2, 7, Attributes::new().bool("causal", false)),
        case("long", 1, 140, Attributes::new()),
    ]
}

/// Attention of `q` `[tokens, heads * head_dim]` over `k` and `v` `[tokens, kv_heads * head_dim]` within the sequences
/// that `bounds` (I64, rising from 0 to the number of tokens) separates.
pub fn sequence_attention(
    cx: &Context,
    [q, k, v]: [&Tensor; 3],
    bounds: &Tensor,
    attributes: &Attributes,
) -> Result<Tensor, Error> {
    let mut outputs = cx.call(&SEQUENCE_ATTENTION, &[q, k, v, bounds], attributes)?;
    outputs.truncate(1);
    outputs.pop().ok_or(Error::Argument { op: SEQUENCE_ATTENTION.name, message: "gave no output".into() })
}

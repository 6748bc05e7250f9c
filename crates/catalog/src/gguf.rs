//! Hyper-parameters in GGUF metadata, under the keys of llama.cpp's converter.

use windlass_tensor::{Array, Metadata, Value};

use crate::{
    Architecture, Error, Hyper,
    architecture::{GgufKey, QueryScalar},
    error::short,
    hyper::{MAX_CONTEXT, MAX_EXPERTS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, Names},
    registry,
    rope::{self, RopeScaling},
    settings::Keys,
};

const ARCHITECTURE: &str = "general.architecture";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type_count";

/// The architecture and hyper-parameters that GGUF metadata describe. Metadata leave some things open: complete the result with
/// [`Architecture::absorb`] and [`Architecture::settle`] as soon as the file's tensors are known.
///
/// # Errors
/// If the architecture is not known, or a key is missing, of a wrong type, out of bounds, contradictory or not supported.
pub fn from_gguf(metadata: &Metadata) -> Result<(&'static Architecture, Hyper), Error> {
    let Some(name) = metadata.get(ARCHITECTURE) else {
        return Err(Error::Missing { key: ARCHITECTURE.into(), expected: "the name of an architecture".into() });
    };
    let name = name.as_str().ok_or_else(|| Error::Invalid {
        key: ARCHITECTURE.into(),
        expected: "a string".into(),
        found: short(&name.to_string()),
    })?;
    let marked = |a: &&Architecture| {
        let keys = Keys { architecture: a.gguf_name, metadata };
        a.gguf_marker.is_none_or(|key| keys.get(key).is_some_and(|v| v.as_u64() != Some(0)))
    };
    let architecture = registry::find(name, |a| a.gguf_name == name && marked(&a))?;
    Ok((architecture, read(architecture, metadata)?))
}

fn read(architecture: &'static Architecture, metadata: &Metadata) -> Result<Hyper, Error> {
    let defaults = &architecture.defaults;
    let keys = Keys { architecture: architecture.gguf_name, metadata };
    let hidden = keys.need("embedding_length", 1, MAX_WIDTH)?;
    let layers = keys.need("block_count", 1, MAX_LAYERS)?;
    let heads = keys.need("attention.head_count", 1, MAX_WIDTH)?;
    let kv_heads = keys.count("attention.head_count_kv", 1, MAX_WIDTH)?.unwrap_or(heads);
    let head_dim = head_dim(keys, hidden, heads)?;
    let ffn = keys.need("feed_forward_length", 1, MAX_WIDTH)?;
    let context = keys.need("context_length", 1, MAX_CONTEXT)?;
    let experts = match defaults.experts_normalized {
        Some(_) => keys.count("expert_count", 0, MAX_EXPERTS)?.unwrap_or(0),
        None => 0,
    };
    let (sliding_window, sliding) = sliding(architecture, keys, layers)?;
    let eps = if defaults.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let rope_theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let (rope_scaling, rope_attention_factor) = scaling(architecture, keys)?;
    let hyper = Hyper {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        rotary_dim: keys.count("rope.dimension_count", 1, MAX_WIDTH)?.unwrap_or(head_dim),
        ffn,
        vocab: vocab(keys)?,
        context,
        original_context: keys.count("rope.scaling.original_context_length", 1, MAX_CONTEXT)?.unwrap_or(context),
        experts,
        experts_used: if experts > 0 { keys.need("expert_used_count", 1, MAX_EXPERTS)? } else { 0 },
        expert_ffn: if experts > 0 {
            keys.count("expert_feed_forward_length", 1, MAX_WIDTH)?.unwrap_or(ffn)
        } else {
            0
        },
        experts_normalized: experts > 0 && keys.flag("expert_weights_norm")?.unwrap_or(true),
        norm_eps: keys.positive(eps)?.unwrap_or(defaults.norm_eps),
        rope_theta,
        rope_theta_sliding: keys.positive("rope.freq_base_swa")?.or(defaults.rope_theta_sliding).unwrap_or(rope_theta),
        rope_scaling,
        rope_attention_factor,
        sliding_window,
        sliding,
        tied: defaults.tied,
        attention_bias: false,
        mlp_bias: false,
        attention_soft_cap: keys.positive("attn_logit_softcapping")?.or(defaults.attention_soft_cap),
        output_soft_cap: keys.positive("final_logit_softcapping")?.or(defaults.output_soft_cap),
        query_scalar: match keys.positive("attention.scale")? {
            Some(scale) => query_scalar(scale),
            None => implied_scalar(architecture, hidden, layers, heads, head_dim),
        },
        activation: defaults.activation,
        token_types: token_types(defaults.token_types, metadata)?,
        causal: keys.flag("attention.causal")?.unwrap_or(defaults.causal),
    };
    registry::require_experts(architecture, &hyper, "expert_count")?;
    hyper.checked(Names::Gguf(architecture.gguf_name))
}

fn head_dim(keys: Keys, hidden: usize, heads: usize) -> Result<usize, Error> {
    let key = keys.count("attention.key_length", 1, MAX_WIDTH)?;
    let value = keys.count("attention.value_length", 1, MAX_WIDTH)?;
    match (key, value) {
        (Some(key), Some(value)) if key != value => Err(Error::Invalid {
            key: keys.name("attention.value_length"),
            expected: format!("the key length, {key}"),
            found: value.to_string(),
        }),
        (Some(n), _) => Ok(n),
        (None, _) if hidden.is_multiple_of(heads) => Ok(hidden / heads),
        (None, _) => Err(Error::Invalid {
            key: keys.name("attention.head_count"),
            expected: format!("a divisor of the embedding length {hidden}, since there is no key length"),
            found: heads.to_string(),
        }),
    }
}

fn vocab(keys: Keys) -> Result<usize, Error> {
    if let Some(n) = keys.count("vocab_size", 1, MAX_VOCAB)? {
        return Ok(n);
    }
    let expected = format!("a list of 1 to {MAX_VOCAB} strings, or {}", keys.name("vocab_size"));
    match keys.metadata.get(TOKENS) {
        Some(Value::Array(list)) if (1..=MAX_VOCAB).contains(&list.len()) => Ok(list.len()),
        Some(other) => Err(Error::Invalid { key: TOKENS.into(), expected, found: short(&other.to_string()) }),
        None => Err(Error::Missing { key: TOKENS.into(), expected }),
    }
}

fn token_types(default: usize, metadata: &Metadata) -> Result<usize, Error> {
    let Some(value) = metadata.get(TOKEN_TYPES).filter(|_| default > 0) else { return Ok(default) };
    match value.as_u64() {
        Some(n @ 1..=65_536) => Ok(n as usize),
        _ => Err(Error::Invalid {
            key: TOKEN_TYPES.into(),
            expected: "an integer from 1 to 65536".into(),
            found: short(&value.to_string()),
        }),
    }
}

fn sliding(architecture: &Architecture, keys: Keys, layers: usize) -> Result<(Option<usize>, Vec<bool>), Error> {
    let defaults = &architecture.defaults;
    // llama.cpp has a window of its own accord for the one architecture whose early files do not name it.
    let default = defaults.sliding_window.filter(|_| defaults.sliding == crate::architecture::Sliding::AllBut(2));
    let window = keys.count("attention.sliding_window", 0, MAX_CONTEXT)?.or(default).filter(|n| *n > 0);
    let pattern = match keys.flags("attention.sliding_window_pattern", layers)? {
        Some(pattern) => pattern,
        None => {
            let every = match keys.get("attention.sliding_window_pattern") {
                Some(_) => keys.count("attention.sliding_window_pattern", 1, MAX_LAYERS)?,
                None => None,
            };
            let kind = every.map_or(defaults.sliding, crate::architecture::Sliding::AllBut);
            (0..layers).map(|l| kind.layer(l)).collect()
        }
    };
    Ok(if window.is_some() && pattern.contains(&true) { (window, pattern) } else { (None, vec![false; layers]) })
}

/// The scaling that metadata name; lists of factors are tensors and come later.
fn scaling(architecture: &'static Architecture, keys: Keys) -> Result<(Option<RopeScaling>, Option<f32>), Error> {
    let factor = || keys.positive("rope.scaling.factor");
    let need = || {
        let missing = Error::Missing { key: keys.name("rope.scaling.factor"), expected: "a positive number".into() };
        factor()?.ok_or(missing)
    };
    match keys.text("rope.scaling.type")? {
        // Files older than the type have the factor of a linear scaling.
        None => {
            let old = factor()?.or(keys.positive("rope.scale_linear")?).filter(|f| *f != 1.0);
            Ok((old.map(|factor| RopeScaling::Linear { factor }), keys.positive("rope.scaling.attn_factor")?))
        }
        Some("none") => Ok((None, None)),
        Some("linear") => Ok((Some(RopeScaling::Linear { factor: need()? }), None)),
        Some("yarn") => {
            let beta_fast = keys.positive("rope.scaling.yarn_beta_fast")?;
            let beta_slow = keys.positive("rope.scaling.yarn_beta_slow")?;
            let truncate = keys.flag("rope.scaling.yarn_truncate")?.unwrap_or(true);
            let scaling = RopeScaling::Yarn { factor: need()?, beta_fast, beta_slow, truncate };
            Ok((Some(scaling), keys.positive("rope.scaling.yarn_attn_factor")?))
        }
        Some("longrope") => Ok((None, keys.positive("rope.scaling.attn_factor")?)),
        Some(other) => Err(Error::Unsupported {
            key: keys.name("rope.scaling.type"),
            found: short(other),
            architecture: architecture.name,
            remedy: "none, linear, yarn and longrope can be used",
        }),
    }
}

/// The number under the root of a scale: an integer in every model, which f32 blurs.
fn query_scalar(scale: f32) -> f32 {
    let scalar = 1.0 / (scale * scale);
    if (scalar - scalar.round()).abs() <= 1e-5 * scalar { scalar.round() } else { scalar }
}

/// The number under the root of the query scale that llama.cpp assumes, since its files do not hold it.
fn implied_scalar(architecture: &Architecture, hidden: usize, layers: usize, heads: usize, head_dim: usize) -> f32 {
    match architecture.defaults.query_scalar {
        QueryScalar::Configured { depth } if depth == layers => (hidden / heads) as f32,
        _ => head_dim as f32,
    }
}

impl Architecture {
    /// The metadata of a GGUF file that follow from the architecture: `general.architecture` and its own keys, with the names and value
    /// types of llama.cpp's converter. Where those would lose something, a key that llama.cpp leaves alone is added: the window of
    /// architectures that it runs without, layer patterns and query scales of one's own, expert weights that are not normalized, a blend of YaRN that is not cut at whole pairs. Of the
    /// tokenizer's keys only BERT's count of token types, which is a shape.
    pub fn to_gguf(&self, hyper: &Hyper) -> Metadata {
        let h = hyper;
        let has = |key| self.gguf_keys.contains(&key);
        let mut all = Metadata::new();
        all.set(ARCHITECTURE, self.gguf_name);
        let mut put = |key: &str, value: Value| all.set(format!("{}.{key}", self.gguf_name), value);
        put("block_count", whole(h.layers));
        put("context_length", whole(h.context));
        put("embedding_length", whole(h.hidden));
        put("feed_forward_length", whole(h.ffn));
        put("attention.head_count", whole(h.heads));
        if has(GgufKey::KvHeads) {
            put("attention.head_count_kv", whole(h.kv_heads));
        }
        if has(GgufKey::HeadDim) || h.head_dim * h.heads != h.hidden {
            put("attention.key_length", whole(h.head_dim));
            put("attention.value_length", whole(h.head_dim));
        }
        let eps =
            if self.defaults.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        put(eps, h.norm_eps.into());
        if has(GgufKey::Vocab) {
            put("vocab_size", whole(h.vocab));
        }
        if has(GgufKey::Causal) {
            put("attention.causal", h.causal.into());
        }
        self.put_experts(h, &mut put);
        self.put_rope(h, &mut put);
        self.put_attention(h, &mut put);
        if self.defaults.token_types > 0 {
            all.set(TOKEN_TYPES, whole(h.token_types));
        }
        all
    }

    fn put_experts(&self, h: &Hyper, put: &mut impl FnMut(&str, Value)) {
        if h.experts == 0 {
            return;
        }
        put("expert_count", whole(h.experts));
        put("expert_used_count", whole(h.experts_used));
        if self.gguf_keys.iter().any(|key| matches!(key, GgufKey::ExpertFfn | GgufKey::FfnAsExpertFfn)) {
            put("expert_feed_forward_length", whole(h.expert_ffn));
        }
        if !h.experts_normalized {
            put("expert_weights_norm", false.into());
        }
    }

    fn put_rope(&self, h: &Hyper, put: &mut impl FnMut(&str, Value)) {
        let has = |key| self.gguf_keys.contains(&key);
        if !h.causal {
            return;
        }
        if has(GgufKey::RotaryDim) || h.rotary_dim != h.head_dim {
            put("rope.dimension_count", whole(h.rotary_dim));
        }
        if has(GgufKey::RopeTheta) || h.rope_theta != self.defaults.rope_theta {
            put("rope.freq_base", h.rope_theta.into());
        }
        if has(GgufKey::RopeThetaSliding) {
            put("rope.freq_base_swa", h.rope_theta_sliding.into());
        }
        let mut original = has(GgufKey::OriginalContext);
        match &h.rope_scaling {
            Some(RopeScaling::Linear { factor }) => {
                put("rope.scaling.type", "linear".into());
                put("rope.scaling.factor", (*factor).into());
            }
            Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate }) => {
                original = true;
                if !truncate {
                    put("rope.scaling.yarn_truncate", false.into());
                }
                put("rope.scaling.type", "yarn".into());
                put("rope.scaling.factor", (*factor).into());
                let optional = [
                    ("rope.scaling.yarn_attn_factor", &h.rope_attention_factor),
                    ("rope.scaling.yarn_beta_fast", beta_fast),
                    ("rope.scaling.yarn_beta_slow", beta_slow),
                ];
                for (key, value) in optional {
                    if let Some(v) = value {
                        put(key, (*v).into());
                    }
                }
            }
            Some(RopeScaling::Long { .. }) => {
                original = true;
                if !has(GgufKey::OriginalContext) {
                    put("rope.scaling.type", "longrope".into());
                }
                let factor = h.rope_attention_factor.unwrap_or_else(|| rope::attention_factor(h));
                put("rope.scaling.attn_factor", factor.into());
            }
            // As tensors only.
            Some(RopeScaling::Llama3 { .. } | RopeScaling::Factors(_)) | None => {}
        }
        if original {
            put("rope.scaling.original_context_length", whole(h.original_context));
        }
    }

    fn put_attention(&self, h: &Hyper, put: &mut impl FnMut(&str, Value)) {
        let has = |key| self.gguf_keys.contains(&key);
        if has(GgufKey::SoftCaps) {
            for (key, cap) in
                [("attn_logit_softcapping", h.attention_soft_cap), ("final_logit_softcapping", h.output_soft_cap)]
            {
                if let Some(cap) = cap {
                    put(key, cap.into());
                }
            }
        }
        match h.sliding_window {
            Some(window) => put("attention.sliding_window", whole(window)),
            None if has(GgufKey::SlidingWindowOrZero) => put("attention.sliding_window", whole(0)),
            None => {}
        }
        let usual = h.sliding.iter().enumerate().all(|(l, s)| *s == self.defaults.sliding.layer(l));
        if h.sliding_window.is_some() && !usual {
            put("attention.sliding_window_pattern", Value::Array(Array::Bool(h.sliding.clone())));
        }
        if h.query_scalar != implied_scalar(self, h.hidden, h.layers, h.heads, h.head_dim) {
            put("attention.scale", h.attention_scale().into());
        }
    }
}

/// Every count is within u32: the bounds of [`Hyper`] see to it.
fn whole(count: usize) -> Value {
    Value::U32(u32::try_from(count).unwrap_or(u32::MAX))
}

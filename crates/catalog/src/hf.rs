//! Hyper-parameters in config.json, as transformers 4 and 5 write it.

use serde_json::{Map, Value as Json, json};

use crate::{
    Activation, Architecture, Error, Hyper,
    architecture::QueryScalar,
    error::short,
    hyper::{MAX_CONTEXT, MAX_EXPERTS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, Names},
    registry,
    rope::RopeScaling,
    settings::{Fields, decimal},
};

/// The architecture and hyper-parameters that a config.json describes: by its `architectures`, else by its `model_type`. The text part
/// of a model with vision counts as a model of its own.
///
/// # Errors
/// If the architecture is not known, or a setting is missing, of a wrong type, out of bounds, contradictory or not supported.
pub fn from_hf_config(config: &Json) -> Result<(&'static Architecture, Hyper), Error> {
    let outer = Fields::new("", config)?;
    let architecture = identify(outer)?;
    let fields = match outer.get("text_config") {
        Some(inner) => Fields::new("text_config.", inner)?,
        None => outer,
    };
    Ok((architecture, read(architecture, fields)?))
}

fn identify(fields: Fields) -> Result<&'static Architecture, Error> {
    if let Some(class) = fields.texts("architectures", 16)?.and_then(|classes| classes.first().copied()) {
        return registry::find(class, |a| a.classes.contains(&class));
    }
    let Some(model_type) = fields.text("model_type")? else {
        return Err(Error::Missing {
            key: "architectures".into(),
            expected: "a list with the name of a model class".into(),
        });
    };
    registry::find(model_type, |a| a.model_types.contains(&model_type))
}

fn read(architecture: &'static Architecture, fields: Fields) -> Result<Hyper, Error> {
    let defaults = &architecture.defaults;
    let or_need = |key, default: Option<usize>, most| match default {
        Some(default) => Ok(fields.count(key, 1, most)?.unwrap_or(default)),
        None => fields.need(key, 1, most),
    };
    refuse(architecture, fields)?;
    let hidden = fields.need("hidden_size", 1, MAX_WIDTH)?;
    let layers = fields.need("num_hidden_layers", 1, MAX_LAYERS)?;
    let heads = or_need("num_attention_heads", defaults.heads, MAX_WIDTH)?;
    let kv_heads = match fields.count("num_key_value_heads", 1, MAX_WIDTH)? {
        _ if !defaults.causal => heads,
        Some(n) => n,
        None if fields.is_null("num_key_value_heads") => heads,
        None => defaults.kv_heads.unwrap_or(heads),
    };
    let head_dim = match fields.count("head_dim", 1, MAX_WIDTH)?.or(defaults.head_dim) {
        Some(n) => n,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a divisor of hidden_size {hidden}, since there is no head_dim");
            return Err(Error::Invalid { key: "num_attention_heads".into(), expected, found: heads.to_string() });
        }
    };
    let ffn = fields.need("intermediate_size", 1, MAX_WIDTH)?;
    let context = fields.count("max_position_embeddings", 1, MAX_CONTEXT)?.unwrap_or(defaults.context);
    let experts = match fields.count("num_local_experts", 0, MAX_EXPERTS)? {
        Some(n) => n,
        None => fields.count("num_experts", 0, MAX_EXPERTS)?.unwrap_or(0),
    };
    let experts = if defaults.experts_normalized.is_some() { experts } else { 0 };
    let (sliding_window, sliding) = sliding(architecture, fields, layers)?;
    let scalar = match defaults.query_scalar {
        QueryScalar::HeadDim => None,
        QueryScalar::Configured { .. } => fields.positive("query_pre_attn_scalar")?,
    };
    let eps = fields.positive(if defaults.layer_norm { "layer_norm_eps" } else { "rms_norm_eps" })?;
    let rope = Rope::read(architecture, fields, context)?;
    let hyper = Hyper {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        rotary_dim: rope.rotary_dim(head_dim),
        ffn,
        vocab: or_need("vocab_size", defaults.vocab, MAX_VOCAB)?,
        context,
        original_context: rope.original_context,
        experts,
        experts_used: if experts > 0 { fields.need("num_experts_per_tok", 1, MAX_EXPERTS)? } else { 0 },
        expert_ffn: if experts > 0 { fields.count("moe_intermediate_size", 1, MAX_WIDTH)?.unwrap_or(ffn) } else { 0 },
        experts_normalized: experts > 0
            && fields.flag("norm_topk_prob")?.or(defaults.experts_normalized).unwrap_or(false),
        norm_eps: eps.unwrap_or(defaults.norm_eps),
        rope_theta: rope.theta,
        rope_theta_sliding: rope.theta_sliding,
        rope_scaling: rope.scaling,
        rope_attention_factor: rope.attention_factor,
        sliding_window,
        sliding,
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(defaults.tied),
        attention_bias: fields.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: fields.flag("mlp_bias")?.unwrap_or(false),
        attention_soft_cap: soft_cap(fields, "attn_logit_softcapping", defaults.attention_soft_cap)?,
        output_soft_cap: soft_cap(fields, "final_logit_softcapping", defaults.output_soft_cap)?,
        query_scalar: scalar.unwrap_or(head_dim as f32),
        activation: defaults.activation,
        token_types: match defaults.token_types {
            0 => 0,
            default => fields.count("type_vocab_size", 1, MAX_WIDTH)?.unwrap_or(default),
        },
        causal: defaults.causal,
    };
    registry::require_experts(architecture, &hyper, "num_experts")?;
    hyper.checked(Names::Hf)
}

fn soft_cap(fields: Fields, key: &str, default: Option<f32>) -> Result<Option<f32>, Error> {
    Ok(if fields.is_null(key) { None } else { fields.positive(key)?.or(default) })
}

/// Settings that would change the graph in ways the catalog does not describe.
fn refuse(architecture: &'static Architecture, fields: Fields) -> Result<(), Error> {
    let unsupported = |key: &str, remedy| {
        let found = fields.get(key).map(|v| short(&v.to_string())).unwrap_or_default();
        Err(Error::Unsupported { key: key.into(), found, architecture: architecture.name, remedy })
    };
    let key = if fields.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    let expected = activation_name(architecture.defaults.activation);
    if fields.text(key)?.is_some_and(|found| found != expected && !(expected == "silu" && found == "swish")) {
        // Early configurations of Gemma say gelu and mean its approximation.
        if !(key == "hidden_act" && architecture.defaults.activation == Activation::GeluTanh) {
            return unsupported(key, "only models with the activation of the published ones can be used");
        }
    }
    if fields.flag("use_bidirectional_attention")? == Some(true) {
        return unsupported("use_bidirectional_attention", "use the causal model it was made from");
    }
    if fields.count("decoder_sparse_step", 0, MAX_LAYERS)?.is_some_and(|step| step != 1) {
        return unsupported("decoder_sparse_step", "only models with experts in every layer can be used");
    }
    if fields.get("mlp_only_layers").is_some_and(|v| v.as_array().is_none_or(|list| !list.is_empty())) {
        return unsupported("mlp_only_layers", "only models with experts in every layer can be used");
    }
    for (key, published) in [("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)] {
        let found =
            if architecture.defaults.activation == Activation::ClampedSwiglu { fields.positive(key)? } else { None };
        if found.is_some_and(|found| found != published) {
            return unsupported(key, "only models with the activation of the published ones can be used");
        }
    }
    if fields.text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return unsupported("position_embedding_type", "only absolute positions can be used");
    }
    Ok(())
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu | Activation::ClampedSwiglu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    }
}

/// The window, and which layers have it.
fn sliding(architecture: &Architecture, fields: Fields, layers: usize) -> Result<(Option<usize>, Vec<bool>), Error> {
    let defaults = &architecture.defaults;
    let full = Ok((None, vec![false; layers]));
    let window = match fields.count("sliding_window", 1, MAX_CONTEXT)? {
        None if fields.is_null("sliding_window") => None,
        window => window.or(defaults.sliding_window),
    };
    let Some(window) = window else { return full };
    if fields.flag("use_sliding_window")? == Some(false) {
        return full;
    }
    let pattern: Vec<bool> = if let Some(types) = fields.texts("layer_types", MAX_LAYERS)? {
        if let Some(other) = types.iter().find(|t| !matches!(**t, "full_attention" | "sliding_attention")) {
            return Err(Error::Unsupported {
                key: "layer_types".into(),
                found: short(other),
                architecture: architecture.name,
                remedy: "only full_attention and sliding_attention can be used",
            });
        }
        if types.len() != layers {
            let expected = format!("one per layer, {layers}");
            return Err(Error::Invalid { key: "layer_types".into(), expected, found: types.len().to_string() });
        }
        types.iter().map(|t| *t == "sliding_attention").collect()
    } else if fields.flag("use_sliding_window")? == Some(true) {
        let first = fields.count("max_window_layers", 0, MAX_LAYERS)?.unwrap_or(28);
        (0..layers).map(|l| l >= first).collect()
    } else if let Some(n) = fields.count("sliding_window_pattern", 1, MAX_LAYERS)? {
        (0..layers).map(|l| crate::architecture::Sliding::AllBut(n).layer(l)).collect()
    } else {
        (0..layers).map(|l| defaults.sliding.layer(l)).collect()
    };
    if pattern.contains(&true) { Ok((Some(window), pattern)) } else { full }
}

/// The rotary settings, from wherever a version of transformers puts them.
struct Rope {
    theta: f32,
    theta_sliding: f32,
    partial: f32,
    original_context: usize,
    scaling: Option<RopeScaling>,
    attention_factor: Option<f32>,
}

impl Rope {
    fn read(architecture: &'static Architecture, fields: Fields, context: usize) -> Result<Self, Error> {
        let defaults = &architecture.defaults;
        let (all, path) = match (fields.get("rope_parameters"), fields.get("rope_scaling")) {
            (Some(v), _) => (Some(v), "rope_parameters."),
            (None, v) => (v, "rope_scaling."),
        };
        let all = all.map(|v| Fields::new(path, v)).transpose()?;
        let of_kind =
            |kind: &'static str, path| all.and_then(|f| f.get(kind)).map(|v| Fields::new(path, v)).transpose();
        let full = of_kind("full_attention", "rope_parameters.full_attention.")?.or(all);
        let local = of_kind("sliding_attention", "rope_parameters.sliding_attention.")?;
        let inner = |key| full.map(|f| f.positive(key)).transpose().map(Option::flatten);
        let theta = inner("rope_theta")?.or(fields.positive("rope_theta")?).unwrap_or(defaults.rope_theta);
        let local =
            local.map(|f| f.positive("rope_theta")).transpose()?.flatten().or(fields.positive("rope_local_base_freq")?);
        let original = full.map(|f| f.count("original_max_position_embeddings", 1, MAX_CONTEXT)).transpose()?.flatten();
        let original = original.or(fields.count("original_max_position_embeddings", 1, MAX_CONTEXT)?);
        let scaling = full.map(|f| scaling(architecture, f)).transpose()?.flatten();
        let attention_factor =
            inner("attention_factor")?.filter(|_| !matches!(scaling, None | Some(RopeScaling::Factors(_))));
        Ok(Self {
            theta,
            theta_sliding: local.or(defaults.rope_theta_sliding).unwrap_or(theta),
            partial: inner("partial_rotary_factor")?.or(fields.positive("partial_rotary_factor")?).unwrap_or(1.0),
            original_context: original.or(defaults.original_context).unwrap_or(context),
            scaling,
            attention_factor,
        })
    }

    fn rotary_dim(&self, head_dim: usize) -> usize {
        // The fraction may have been rounded when it was written.
        (f64::from(self.partial.min(1e6)) * head_dim as f64 + 1e-3) as usize
    }
}

fn scaling(architecture: &'static Architecture, fields: Fields) -> Result<Option<RopeScaling>, Error> {
    let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
    let factor = || {
        let missing = Error::Missing { key: "rope_scaling.factor".into(), expected: "a positive number".into() };
        fields.positive("factor")?.ok_or(missing)
    };
    let list = |key| Ok(fields.numbers(key, MAX_WIDTH)?.unwrap_or_default());
    Ok(Some(match kind {
        "default" => return Ok(None),
        "linear" => RopeScaling::Linear { factor: factor()? },
        "yarn" if fields.get("mscale").is_none() => RopeScaling::Yarn {
            factor: factor()?,
            beta_fast: fields.positive("beta_fast")?,
            beta_slow: fields.positive("beta_slow")?,
            truncate: fields.flag("truncate")?.unwrap_or(true),
        },
        "llama3" => RopeScaling::Llama3 {
            factor: factor()?,
            low: fields.positive("low_freq_factor")?.unwrap_or(1.0),
            high: fields.positive("high_freq_factor")?.unwrap_or(4.0),
        },
        "longrope" | "su" => {
            let (short, long): (Vec<f32>, _) = (list("short_factor")?, list("long_factor")?);
            if short == long && fields.positive("attention_factor")? == Some(1.0) {
                RopeScaling::Factors(short)
            } else {
                RopeScaling::Long { short, long }
            }
        }
        other => {
            return Err(Error::Unsupported {
                key: "rope_scaling.rope_type".into(),
                found: short(other),
                architecture: architecture.name,
                remedy: "linear, yarn, llama3 and longrope can be used; without rope_scaling the original context remains",
            });
        }
    }))
}

impl Architecture {
    /// A config.json for these hyper-parameters that transformers 4 and 5 and mlx-lm accept. It says nothing about element types, token
    /// numbers or quantization: the caller adds those.
    pub fn to_hf_config(&self, hyper: &Hyper) -> Json {
        let h = hyper;
        let d = &self.defaults;
        let mut all = Map::new();
        let mut put = |key: &str, value: Json| all.insert(key.into(), value);
        put("architectures", json!([self.classes.first()]));
        put("model_type", json!(self.model_types.first()));
        put("hidden_size", json!(h.hidden));
        put("num_hidden_layers", json!(h.layers));
        put("num_attention_heads", json!(h.heads));
        put("intermediate_size", json!(h.ffn));
        put("vocab_size", json!(h.vocab));
        put("max_position_embeddings", json!(h.context));
        put("tie_word_embeddings", json!(h.tied));
        put("pad_token_id", Json::Null);
        put(
            if d.activation == Activation::GeluTanh { "hidden_activation" } else { "hidden_act" },
            json!(activation_name(d.activation)),
        );
        put(if d.layer_norm { "layer_norm_eps" } else { "rms_norm_eps" }, json!(decimal(h.norm_eps)));
        if d.token_types > 0 {
            put("type_vocab_size", json!(h.token_types));
        }
        if h.experts > 0 {
            put(if self.has_own_expert_width() { "num_experts" } else { "num_local_experts" }, json!(h.experts));
            put("num_experts_per_tok", json!(h.experts_used));
        }
        if self.has_own_expert_width() {
            put("moe_intermediate_size", json!(h.expert_ffn));
            put("norm_topk_prob", json!(h.experts_normalized));
            put("decoder_sparse_step", json!(1));
            put("mlp_only_layers", json!([]));
        }
        if d.causal {
            put("num_key_value_heads", json!(h.kv_heads));
            put("head_dim", json!(h.head_dim));
            put("attention_bias", json!(h.attention_bias));
            put("mlp_bias", json!(h.mlp_bias));
            put_rope(h, d.rope_theta_sliding.is_some(), &mut put);
            put_sliding(h, &mut put);
        }
        if matches!(d.query_scalar, QueryScalar::Configured { .. }) {
            // transformers 5 insists on an integer.
            let scalar = h.query_scalar;
            put(
                "query_pre_attn_scalar",
                if scalar.fract() == 0.0 { json!(scalar as u64) } else { json!(decimal(scalar)) },
            );
            put("attn_logit_softcapping", json!(h.attention_soft_cap.map(decimal)));
            put("final_logit_softcapping", json!(h.output_soft_cap.map(decimal)));
        }
        Json::Object(all)
    }

    fn has_own_expert_width(&self) -> bool {
        self.gguf_keys.contains(&crate::architecture::GgufKey::ExpertFfn)
    }
}

fn put_sliding(h: &Hyper, put: &mut impl FnMut(&str, Json) -> Option<Json>) {
    put("sliding_window", json!(h.sliding_window));
    if h.sliding_window.is_none() {
        return;
    }
    put("use_sliding_window", json!(true));
    let kind = |sliding: &bool| if *sliding { "sliding_attention" } else { "full_attention" };
    put("layer_types", json!(h.sliding.iter().map(kind).collect::<Vec<_>>()));
    if let Some(first_full) = h.sliding.iter().position(|sliding| !sliding) {
        put("sliding_window_pattern", json!(first_full + 1));
    }
}

fn put_rope(h: &Hyper, local: bool, put: &mut impl FnMut(&str, Json) -> Option<Json>) {
    put("rope_theta", json!(decimal(h.rope_theta)));
    if local {
        put("rope_local_base_freq", json!(decimal(h.rope_theta_sliding)));
    }
    put("original_max_position_embeddings", json!(h.original_context));
    put("partial_rotary_factor", json!(h.rotary_dim as f64 / h.head_dim as f64));
    let decimals = |list: &[f32]| list.iter().copied().map(decimal).collect::<Vec<_>>();
    let (kind, mut scaling) = match &h.rope_scaling {
        None => return,
        Some(RopeScaling::Linear { factor }) => ("linear", json!({"factor": decimal(*factor)})),
        Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate }) => {
            let mut all = json!({"factor": decimal(*factor)});
            if !truncate {
                all["truncate"] = json!(false);
            }
            for (key, value) in [("beta_fast", beta_fast), ("beta_slow", beta_slow)] {
                if let Some(v) = value {
                    all[key] = json!(decimal(*v));
                }
            }
            ("yarn", all)
        }
        Some(RopeScaling::Llama3 { factor, low, high }) => (
            "llama3",
            json!({"factor": decimal(*factor), "low_freq_factor": decimal(*low), "high_freq_factor": decimal(*high)}),
        ),
        Some(RopeScaling::Long { short, long }) => {
            ("longrope", json!({"short_factor": decimals(short), "long_factor": decimals(long)}))
        }
        // The same list within and beyond the original context.
        Some(RopeScaling::Factors(list)) => (
            "longrope",
            json!({"short_factor": decimals(list), "long_factor": decimals(list), "attention_factor": 1.0}),
        ),
    };
    scaling["rope_type"] = json!(kind);
    scaling["type"] = json!(kind);
    if kind != "linear" {
        scaling["original_max_position_embeddings"] = json!(h.original_context);
    }
    if let Some(factor) = h.rope_attention_factor {
        scaling["attention_factor"] = json!(decimal(factor));
    }
    put("rope_scaling", scaling);
}

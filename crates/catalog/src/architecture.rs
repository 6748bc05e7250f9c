//! An architecture, and what can be asked of it.

use std::sync::Arc;

use crate::{
    Activation, Convention, Error, Hyper, Part, Piece, Role,
    hyper::{MAX_PIECES, Names},
    rope,
    rope::RopeScaling,
    spec::{Need, Spec},
};

/// One family of models with the same graph. All of it is data.
#[derive(Debug)]
pub struct Architecture {
    pub(crate) name: &'static str,
    pub(crate) classes: &'static [&'static str],
    pub(crate) model_types: &'static [&'static str],
    pub(crate) gguf_name: &'static str,
    /// A key that is there and not zero in this architecture alone, where several share `gguf_name`.
    pub(crate) gguf_marker: Option<&'static str>,
    pub(crate) gguf_keys: &'static [GgufKey],
    /// Whether GGUF stores query and key rows in llama.cpp's rotary order.
    pub(crate) gguf_interleaves_heads: bool,
    /// What GGUF adds to the gains of norms.
    pub(crate) gguf_norm_shift: f32,
    /// Whether token embeddings are multiplied with the root of the hidden size.
    pub(crate) scales_embeddings: bool,
    pub(crate) defaults: Defaults,
    /// What stands before the names of a model's body; the first is written.
    pub(crate) roots: &'static [&'static str],
    /// Names that carry no weight of the model: exact, or with one `*` for anything.
    pub(crate) ignorable: &'static [&'static str],
    pub(crate) inventory: &'static [&'static [Spec]],
}

/// Keys that llama.cpp's converter writes for some architectures only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgufKey {
    Vocab,
    KvHeads,
    HeadDim,
    RotaryDim,
    RopeTheta,
    RopeThetaSliding,
    OriginalContext,
    SlidingWindowOrZero,
    SoftCaps,
    ExpertFfn,
    /// As `ExpertFfn`, where config.json knows one width only.
    FfnAsExpertFfn,
    Causal,
}

/// Which layers see a window only, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sliding {
    Never,
    Always,
    /// All but every n-th.
    AllBut(usize),
}

impl Sliding {
    pub(crate) fn layer(self, layer: usize) -> bool {
        match self {
            Sliding::Never => false,
            Sliding::Always => true,
            Sliding::AllBut(n) => !(layer + 1).is_multiple_of(n.max(1)),
        }
    }
}

/// What a config.json or GGUF may leave out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) norm_eps: f32,
    /// Whether the norms subtract the mean (LayerNorm); else they do not (RMSNorm).
    pub(crate) layer_norm: bool,
    pub(crate) rope_theta: f32,
    pub(crate) rope_theta_sliding: Option<f32>,
    pub(crate) heads: Option<usize>,
    pub(crate) kv_heads: Option<usize>,
    pub(crate) head_dim: Option<usize>,
    pub(crate) vocab: Option<usize>,
    pub(crate) context: usize,
    pub(crate) original_context: Option<usize>,
    pub(crate) sliding: Sliding,
    pub(crate) sliding_window: Option<usize>,
    pub(crate) tied: bool,
    pub(crate) experts_normalized: Option<bool>,
    pub(crate) activation: Activation,
    pub(crate) attention_soft_cap: Option<f32>,
    pub(crate) output_soft_cap: Option<f32>,
    pub(crate) query_scalar: QueryScalar,
    pub(crate) token_types: usize,
    pub(crate) causal: bool,
}

/// Where the number comes from whose inverse root scales the queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryScalar {
    HeadDim,
    /// From the configuration. llama.cpp does not store it: it is hidden / heads at this depth and head_dim at any other.
    Configured {
        depth: usize,
    },
}

impl Defaults {
    pub(crate) const DECODER: Self = Self {
        norm_eps: 1e-6,
        layer_norm: false,
        rope_theta: 10_000.0,
        rope_theta_sliding: None,
        heads: None,
        kv_heads: None,
        head_dim: None,
        vocab: None,
        context: 2048,
        original_context: None,
        sliding: Sliding::Never,
        sliding_window: None,
        tied: false,
        experts_normalized: None,
        activation: Activation::Silu,
        attention_soft_cap: None,
        output_soft_cap: None,
        query_scalar: QueryScalar::HeadDim,
        token_types: 0,
        causal: true,
    };
}

/// The two roots under which decoders are saved: as a causal model and as its body alone.
pub(crate) const DECODER_ROOTS: &[&str] = &["model.", ""];
/// What old decoder checkpoints carry beside their weights.
pub(crate) const DECODER_IGNORABLE: &[&str] = &["*.rotary_emb.inv_freq", "*.attn_rot_embd.weight"];

/// GGUF tensors that hold no weights but factors of the rotary frequencies.
const GENERATED: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

impl Architecture {
    /// Its name here.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Values of `architectures` in config.json; the first is written.
    pub fn hf_classes(&self) -> &'static [&'static str] {
        self.classes
    }

    /// Values of `model_type` in config.json; the first is written.
    pub fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    /// The value of `general.architecture`.
    pub fn gguf_name(&self) -> &'static str {
        self.gguf_name
    }

    /// What is added to the gains of norms as [`Convention::Hf`] stores them.
    pub fn norm_offset(&self) -> f32 {
        self.gguf_norm_shift
    }

    /// What token embeddings are multiplied with.
    pub fn embedding_scale(&self, hyper: &Hyper) -> f32 {
        if self.scales_embeddings { (hyper.hidden as f32).sqrt() } else { 1.0 }
    }

    /// The inventory: every piece of a model of these hyper-parameters, those of the ends first, then layer by layer.
    ///
    /// # Errors
    /// If there are more than [`MAX_PIECES`].
    pub fn pieces(&'static self, hyper: &Hyper) -> Result<Vec<Piece>, Error> {
        let specs = || self.inventory.iter().copied().flatten();
        let (layered, ends): (Vec<&'static Spec>, Vec<&'static Spec>) =
            specs().partition(|s| s.gguf.iter().chain(s.hf).any(|site| site.name.contains("{l}")));
        let of_experts = layered.iter().filter(|s| s.role.is_expert()).count();
        let count = ends.len() + hyper.layers * (layered.len() - of_experts + of_experts * hyper.experts);
        if count > MAX_PIECES {
            return Err(Error::Invalid {
                key: "num_hidden_layers".into(),
                expected: format!("at most {MAX_PIECES} tensors"),
                found: format!("{count} tensors"),
            });
        }
        let hyper = Arc::new(hyper.clone());
        let mut pieces = Vec::with_capacity(count);
        pieces.extend(ends.into_iter().map(|s| Piece::new(self, &hyper, s, None, None)));
        for layer in 0..hyper.layers {
            for spec in &layered {
                if spec.role.is_expert() {
                    pieces.extend((0..hyper.experts).map(|e| Piece::new(self, &hyper, spec, Some(layer), Some(e))));
                } else {
                    pieces.push(Piece::new(self, &hyper, spec, Some(layer), None));
                }
            }
        }
        Ok(pieces)
    }

    /// Tensors that only `convention` has and that follow from the hyper-parameters, as names and f32 vectors.
    pub fn generated(&self, hyper: &Hyper, convention: Convention) -> Vec<(String, Vec<f32>)> {
        if convention != Convention::Gguf {
            return Vec::new();
        }
        match (&hyper.rope_scaling, rope::factors(hyper)) {
            (Some(RopeScaling::Long { short, long }), _) => {
                vec![(GENERATED[1].into(), long.clone()), (GENERATED[2].into(), short.clone())]
            }
            (_, Some(factors)) => vec![(GENERATED[0].into(), factors)],
            _ => Vec::new(),
        }
    }

    /// The names that [`Self::generated`] may use; a reader gives those it finds to [`Self::absorb`].
    pub fn generated_names(&self, convention: Convention) -> &'static [&'static str] {
        if convention == Convention::Gguf { &GENERATED } else { &[] }
    }

    /// Completes hyper-parameters that came from metadata with what generated tensors (all of those in the file) say.
    ///
    /// # Errors
    /// If a list does not have one positive number per rotated pair, or only one of a pair of lists is there.
    pub fn absorb(&self, mut hyper: Hyper, generated: &[(String, Vec<f32>)]) -> Result<Hyper, Error> {
        let find = |name: &str| generated.iter().find(|(n, _)| n == name).map(|(_, values)| values.clone());
        let names = Names::Gguf(self.gguf_name);
        match GENERATED.map(find) {
            [None, None, None] => {}
            [Some(factors), None, None] => {
                RopeScaling::Factors(factors.clone()).check(hyper.rotary_dim, names)?;
                let (scaling, original) = rope::recover(&hyper, &factors);
                (hyper.rope_scaling, hyper.original_context) = (Some(scaling), original);
            }
            [None, Some(long), Some(short)] => {
                let scaling = RopeScaling::Long { short, long };
                scaling.check(hyper.rotary_dim, names)?;
                hyper.rope_scaling = Some(scaling);
                // The formula's own value says nothing.
                let formula = rope::attention_factor(&hyper);
                hyper.rope_attention_factor =
                    hyper.rope_attention_factor.filter(|f| (f - formula).abs() > 1e-5 * formula);
            }
            found => {
                let present: Vec<_> =
                    GENERATED.iter().zip(&found).filter(|(_, f)| f.is_some()).map(|(n, _)| *n).collect();
                return Err(Error::Invalid {
                    key: "rotary factors".into(),
                    expected: format!("{} alone, or {} with {}", GENERATED[0], GENERATED[1], GENERATED[2]),
                    found: present.join(", "),
                });
            }
        }
        Ok(hyper)
    }

    /// Settles by the names in a file what metadata leave open: whether the output is tied, and whether there are optional biases.
    pub fn settle(&'static self, mut hyper: Hyper, convention: Convention, has: impl Fn(&str) -> bool) -> Hyper {
        let shared = Arc::new(hyper.clone());
        let there = |spec: &&'static Spec| {
            let layer = spec.hf.iter().any(|s| s.name.contains("{l}")).then_some(0);
            Piece::new(self, &shared, spec, layer, None).places(convention).iter().any(|p| has(&p.tensor))
        };
        let any = |need: Need| {
            let mut specs = self.inventory.iter().copied().flatten().filter(|s| s.need == need).peekable();
            specs.peek().is_some().then(|| specs.any(|s| there(&s)))
        };
        match any(Need::UnlessTied) {
            Some(false) => hyper.tied = true,
            // A checkpoint may keep a copy of tied weights; GGUF never does.
            Some(true) if convention == Convention::Gguf => hyper.tied = false,
            _ => {}
        }
        hyper.attention_bias = any(Need::IfAttentionBias).unwrap_or(hyper.attention_bias);
        hyper.mlp_bias = any(Need::IfMlpBias).unwrap_or(hyper.mlp_bias);
        hyper
    }

    /// Whether a tensor of this name may be left behind: it holds no weight of the model (cached frequencies, position numbers), or it
    /// belongs to a part that the architecture does not have here (a vision tower, a pretraining head).
    pub fn ignorable(&self, convention: Convention, name: &str) -> bool {
        self.generated_names(convention).contains(&name) || self.ignorable.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether the role's norm subtracts the mean (LayerNorm) rather than not (RMSNorm).
    pub fn layer_norm(&self) -> bool {
        self.defaults.layer_norm
    }

    /// Whether any layer has a tensor of this role and part.
    pub fn has(&self, role: Role, part: Part) -> bool {
        self.inventory.iter().copied().flatten().any(|s| s.role == role && s.part == part)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
    }
}

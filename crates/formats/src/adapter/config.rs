//! What an adapter says about itself: PEFT's and MLX's adapter_config.json, llama.cpp's keys.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value as Json};
use windlass_tensor::{Limits, Metadata, Value};

use super::CONFIG;
use crate::{Problem, json};

/// The largest rank that is believed.
pub const MAX_RANK: usize = 1 << 16;

/// Most entries of a pattern.
const PATTERNS: usize = 100_000;

/// The description of an adapter.
#[derive(Debug, Clone)]
pub enum Settings {
    Peft(Box<Peft>),
    Mlx(Mlx),
    /// llama.cpp's `adapter.lora.alpha`: divided by a module's rank it is the scale; 0 stands for a scale of 1.
    Gguf {
        alpha: f64,
    },
}

/// PEFT's LoraConfig, as far as it changes what the tensors mean.
#[derive(Debug, Clone)]
pub struct Peft {
    /// `LORA`, or another method.
    pub method: String,
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    pub dora: bool,
    /// A name or a path, often stale.
    pub base: Option<String>,
    /// Token numbers after which the adapter starts to act.
    pub invocation: Vec<u32>,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
    /// A feature that the tensors alone do not express.
    unsupported: Option<String>,
}

/// What mlx_lm writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlx {
    /// `lora`, `dora` or `full`.
    pub kind: String,
    pub rank: usize,
    pub scale: f64,
    pub dropout: f64,
    pub layers: i64,
    /// A name or a path of the base.
    pub base: Option<String>,
}

impl Settings {
    /// Parses an adapter_config.json: PEFT's if it has a `peft_type`, else MLX's.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Settings, Problem> {
        json::check_depth(text, limits.nesting).map_err(bad)?;
        json::members(text, limits.nesting).map_err(bad)?;
        let all: Map<String, Json> = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
        if all.contains_key("peft_type") {
            return Ok(Settings::Peft(Box::new(peft(&all)?)));
        }
        if all.contains_key("lora_parameters") || all.contains_key("fine_tune_type") {
            return mlx(&all).map(Settings::Mlx);
        }
        Err(bad("has neither PEFT's peft_type nor MLX's lora_parameters".into()))
    }

    /// From the keys of a GGUF adapter.
    pub fn of_gguf(keys: &Metadata) -> Result<Settings, Problem> {
        let bad = |message: String| Problem::new("bad-adapter", message);
        match keys.get("adapter.type").and_then(Value::as_str) {
            Some("lora") => {}
            other => return Err(bad(format!("adapter.type must be \"lora\", found {other:?}"))),
        }
        match keys.get("adapter.lora.alpha") {
            None => Ok(Settings::Gguf { alpha: 0.0 }),
            Some(Value::F32(alpha)) if alpha.is_finite() => Ok(Settings::Gguf { alpha: f64::from(*alpha) }),
            Some(other) => Err(bad(format!("adapter.lora.alpha must be a finite f32, found {other}"))),
        }
    }

    /// The rank that is said for a module; `None` where only its tensors say it.
    pub fn rank(&self, module: &str) -> Option<usize> {
        match self {
            Settings::Peft(peft) => Some(peft.ranks.get(module).unwrap_or(peft.rank)),
            Settings::Mlx(mlx) => Some(mlx.rank),
            Settings::Gguf { .. } => None,
        }
    }

    /// What B A of this module is multiplied with.
    pub fn scale(&self, module: &str, rank: usize) -> f64 {
        let rank = rank as f64;
        match self {
            Settings::Peft(peft) => {
                let alpha = peft.alphas.get(module).unwrap_or(peft.alpha);
                alpha / if peft.rslora { rank.sqrt() } else { rank }
            }
            Settings::Mlx(mlx) => mlx.scale,
            Settings::Gguf { alpha } if *alpha == 0.0 => 1.0,
            Settings::Gguf { alpha } => alpha / rank,
        }
    }

    /// How it names its base: a path, or a model of the hub.
    pub fn base(&self) -> Option<&str> {
        match self {
            Settings::Peft(peft) => peft.base.as_deref(),
            Settings::Mlx(mlx) => mlx.base.as_deref(),
            Settings::Gguf { .. } => None,
        }
    }

    /// Why the tensors are not factors of LoRA, if they are not.
    pub fn not_lora(&self) -> Option<String> {
        match self {
            Settings::Peft(peft) if peft.method != "LORA" => Some(format!("its method is {:?}, not LoRA", peft.method)),
            Settings::Mlx(mlx) if mlx.kind != "lora" && mlx.kind != "dora" => {
                Some(format!("its fine_tune_type is {:?}, not a low-rank change", mlx.kind))
            }
            _ => None,
        }
    }

    /// What another container could not say of it, if there is such a thing.
    pub fn unsupported(&self) -> Option<String> {
        match self {
            Settings::Peft(peft) => self.not_lora().or_else(|| peft.unsupported.clone()),
            _ => self.not_lora(),
        }
    }
}

/// Values for the modules whose names match, as PEFT matches them: the pattern is the end of the name, from a dot on.
#[derive(Debug, Clone)]
struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    fn parse(all: &Map<String, Json>, key: &str, value: impl Fn(&Json) -> Option<T>) -> Result<Self, Problem> {
        let object = match all.get(key) {
            None | Some(Json::Null) => return Ok(Patterns(Vec::new())),
            Some(Json::Object(object)) if object.len() <= PATTERNS => object,
            Some(_) => return Err(bad(format!("{key} must be an object of at most {PATTERNS} patterns"))),
        };
        let pattern = |(pattern, v): (&String, &Json)| {
            let name = json::short(pattern);
            // Names are matched in linear time, whatever the pattern.
            let regex = RegexBuilder::new(&format!("^(?:.*\\.)?(?:{pattern})$")).size_limit(1 << 20).build();
            let regex =
                regex.map_err(|_| bad(format!("{key}: {name:?} is not a regular expression that can be used")))?;
            let value =
                value(v).ok_or_else(|| bad(format!("{key}: the value of {name:?} is not a number in range")))?;
            Ok((regex, value))
        };
        object.iter().map(pattern).collect::<Result<_, _>>().map(Patterns)
    }

    fn get(&self, module: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
    }
}

fn peft(all: &Map<String, Json>) -> Result<Peft, Problem> {
    let flag = |key: &str| match all.get(key) {
        None | Some(Json::Null) => Ok(false),
        Some(Json::Bool(value)) => Ok(*value),
        Some(_) => Err(bad(format!("{key} must be true or false"))),
    };
    let number = |key: &str, usual: f64| match all.get(key) {
        None | Some(Json::Null) => Ok(usual),
        Some(value) => finite(value).ok_or_else(|| bad(format!("{key} must be a finite number"))),
    };
    let method = all.get("peft_type").and_then(Json::as_str).ok_or_else(|| bad("peft_type must be a string".into()))?;
    let lora = method == "LORA";
    Ok(Peft {
        method: json::short(method),
        rank: match all.get("r") {
            Some(r) if lora => rank(r).ok_or_else(|| bad(format!("r must be a rank from 1 to {MAX_RANK}")))?,
            _ => 8,
        },
        alpha: if lora { number("lora_alpha", 8.0)? } else { 8.0 },
        dropout: number("lora_dropout", 0.0)?,
        rslora: flag("use_rslora")?,
        dora: flag("use_dora")?,
        base: all.get("base_model_name_or_path").and_then(Json::as_str).filter(|s| !s.is_empty()).map(String::from),
        invocation: invocation(all)?,
        ranks: Patterns::parse(all, "rank_pattern", rank)?,
        alphas: Patterns::parse(all, "alpha_pattern", finite)?,
        unsupported: unsupported(all),
    })
}

fn invocation(all: &Map<String, Json>) -> Result<Vec<u32>, Problem> {
    let wrong = || bad("alora_invocation_tokens must be a list of token numbers".into());
    match all.get("alora_invocation_tokens") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) if items.len() <= PATTERNS => {
            let token = |v: &Json| v.as_u64().and_then(|v| u32::try_from(v).ok()).ok_or_else(wrong);
            items.iter().map(token).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The first feature that changes what the factors mean.
fn unsupported(all: &Map<String, Json>) -> Option<String> {
    const SWITCHES: [&str; 9] = [
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "target_parameters",
        "trainable_token_indices",
        "layer_replication",
        "arrow_config",
        "kasa_config",
        "monteclora_config",
    ];
    let on = |value: &Json| match value {
        Json::Null | Json::Bool(false) => false,
        Json::Array(items) => !items.is_empty(),
        Json::Object(members) => !members.is_empty(),
        _ => true,
    };
    if let Some(key) = SWITCHES.iter().find(|key| all.get(**key).is_some_and(on)) {
        return Some(format!("it uses {key}, which no other container can say"));
    }
    // These change the base's weights when they begin, so the factors alone are not the difference.
    let start = all.get("init_lora_weights").and_then(Json::as_str).unwrap_or_default();
    let starts = ["pissa", "olora", "corda", "lora_ga"].iter().find(|name| start.starts_with(**name));
    starts.map(|name| {
        format!(
            "it began from {name}, which changes the base's own weights: save it as a plain LoRA first, with \
             path_initial_model_for_weight_conversion"
        )
    })
}

fn mlx(all: &Map<String, Json>) -> Result<Mlx, Problem> {
    let kind = match all.get("fine_tune_type") {
        None => "lora",
        Some(kind) => kind.as_str().ok_or_else(|| bad("fine_tune_type must be a string".into()))?,
    };
    let base = all.get("model").and_then(Json::as_str).map(String::from);
    let layers = all.get("num_layers").and_then(Json::as_i64).unwrap_or(-1);
    let none = Map::new();
    let parameters = match all.get("lora_parameters") {
        Some(Json::Object(parameters)) => parameters,
        _ if kind == "full" => &none,
        _ => return Err(bad("lora_parameters must be an object".into())),
    };
    let full = kind == "full";
    let number = |key: &str| match parameters.get(key).and_then(finite) {
        Some(value) => Ok(value),
        None if full || key == "dropout" => Ok(0.0),
        None => Err(bad(format!("lora_parameters: {key} must be a finite number"))),
    };
    let found = parameters.get("rank").and_then(rank).or(full.then_some(0));
    Ok(Mlx {
        kind: json::short(kind),
        rank: found.ok_or_else(|| bad(format!("lora_parameters: rank must be from 1 to {MAX_RANK}")))?,
        scale: number("scale")?,
        dropout: number("dropout")?,
        layers,
        base,
    })
}

fn rank(value: &Json) -> Option<usize> {
    value.as_u64().and_then(|r| usize::try_from(r).ok()).filter(|r| (1..=MAX_RANK).contains(r))
}

fn finite(value: &Json) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

fn bad(message: String) -> Problem {
    Problem::new("bad-adapter", format!("{CONFIG}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Problem> {
        Settings::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn scales_follow_the_patterns_of_peft() {
        let text = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 16},
            "alpha_pattern": {"^model\\.layers\\.1\\.self_attn\\.k_proj": 2, "layers.\\d+.mlp.up_proj": 1.5}}"#;
        let s = parse(text).unwrap();
        assert_eq!(s.rank("model.layers.0.self_attn.q_proj"), Some(16));
        assert_eq!(s.rank("model.layers.0.self_attn.xq_proj"), Some(4));
        assert_eq!(s.scale("model.layers.0.self_attn.q_proj", 16), 0.5);
        assert_eq!(s.scale("model.layers.0.self_attn.k_proj", 4), 2.0);
        assert_eq!(s.scale("model.layers.12.mlp.up_proj", 4), 0.375);
        let s = parse(r#"{"peft_type": "LORA", "r": 16, "lora_alpha": 8, "use_rslora": true}"#).unwrap();
        assert_eq!(s.scale("x", 16), 2.0);
    }

    #[test]
    fn bad_descriptions_are_refused_by_name() {
        for (text, says) in [
            ("{", "adapter_config.json"),
            ("{}", "neither"),
            (r#"{"peft_type": "LORA", "r": 0}"#, "r must be a rank"),
            (r#"{"peft_type": "LORA", "r": -4}"#, "r must be a rank"),
            (r#"{"peft_type": "LORA", "r": 99999999}"#, "r must be a rank"),
            (r#"{"peft_type": "LORA", "r": 4, "r": 8}"#, "twice"),
            (r#"{"peft_type": "LORA", "lora_alpha": "x"}"#, "lora_alpha"),
            (r#"{"peft_type": "LORA", "lora_alpha": Infinity}"#, "adapter_config.json"),
            (r#"{"peft_type": "LORA", "alpha_pattern": {"(": 1}}"#, "alpha_pattern"),
            (r#"{"peft_type": "LORA", "alpha_pattern": {"((a{999}){999}){999}": 1}}"#, "alpha_pattern"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"q": 0}}"#, "rank_pattern"),
            (r#"{"lora_parameters": {"rank": 0, "scale": 2}}"#, "rank"),
            (r#"{"lora_parameters": {"rank": 8, "alpha": 2}}"#, "scale"),
            (r#"{"fine_tune_type": "dora"}"#, "lora_parameters"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.message.contains(says), "{text}: {problem}");
        }
        assert!(parse(&format!("{{\"peft_type\": {}1{}}}", "[".repeat(5000), "]".repeat(5000))).is_err());
    }

    #[test]
    fn what_the_factors_alone_do_not_say_is_named() {
        let s = parse(r#"{"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"}"#).unwrap();
        assert!(s.unsupported().unwrap().contains("pissa"));
        let s = parse(r#"{"peft_type": "LORA", "target_parameters": ["experts.down_proj"]}"#).unwrap();
        assert!(s.unsupported().unwrap().contains("target_parameters"));
        assert!(parse(r#"{"peft_type": "IA3"}"#).unwrap().not_lora().unwrap().contains("IA3"));
        assert!(parse(r#"{"fine_tune_type": "full"}"#).unwrap().not_lora().is_some());
        assert_eq!(parse(r#"{"peft_type": "LORA", "loftq_config": {}}"#).unwrap().unsupported(), None);
    }
}

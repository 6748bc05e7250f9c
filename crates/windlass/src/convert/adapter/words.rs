//! The description of an adapter in each container's words, and what travels so that there and back is equal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use windlass_formats::Source;
use windlass_formats::adapter::{Adapter, CONFIG, Mlx, Settings, Style};
use windlass_tensor::{Array, Limits, Metadata, Value};

use super::Chosen;
use super::modules::Moved;
use crate::convert::belongings::{self as keys, Belongings};
use crate::convert::foreign;
use crate::convert::names::Output;
use crate::{Error, Model, Result};

/// PEFT's and MLX's adapter_config.json as they were, in keys of whatever the adapter became.
const PEFT: &str = "windlass.adapter.peft";
const MLX: &str = "windlass.adapter.mlx";

/// What llama.cpp keeps of an adapter.
const ALPHA: &str = "adapter.lora.alpha";
const INVOCATION: &str = "adapter.alora.invocation_tokens";

/// The description that the adapter had when it was in the words of `to`, if it ever was.
pub fn carried_settings(source: &Source, to: Style, limits: &Limits) -> Option<Chosen> {
    let key = |name: &str| source.metadata().get(name);
    let text = match to {
        Style::Peft => key(PEFT)?.as_str()?.as_bytes().to_vec(),
        Style::Mlx => key(MLX)?.as_str()?.as_bytes().to_vec(),
        Style::Gguf => {
            let keys = foreign_keys(source);
            let settings = Settings::of_gguf(&keys).ok()?;
            return Some(Chosen::Carried { settings, text: Vec::new() });
        }
    };
    let settings = Settings::parse(&text, limits).ok()?;
    let right = matches!((&settings, to), (Settings::Peft(_), Style::Peft) | (Settings::Mlx(_), Style::Mlx));
    right.then_some(Chosen::Carried { settings, text })
}

/// A description for an adapter that comes from elsewhere.
pub fn invent(adapter: &Adapter, moved: &[Moved], to: Style, warnings: &mut Vec<String>) -> Chosen {
    match to {
        Style::Gguf => {
            let alpha = most_common(moved.iter().map(|m| (m.scale * m.rank as f64) as f32).filter(|a| *a != 0.0));
            Chosen::Invented(Settings::Gguf { alpha: f64::from(alpha.unwrap_or(1.0)) }, Json::Null)
        }
        Style::Mlx => mlx(adapter, moved, warnings),
        Style::Peft => peft(adapter, moved),
    }
}

fn mlx(adapter: &Adapter, moved: &[Moved], warnings: &mut Vec<String>) -> Chosen {
    let rank = moved.iter().map(|m| m.rank).max().unwrap_or(1);
    let fewer = moved.iter().filter(|m| m.rank < rank).count();
    if fewer > 0 {
        warnings
            .push(format!("MLX has one rank for all modules: {fewer} of them are padded with zeros to rank {rank}"));
    }
    let dora = moved.iter().any(|m| m.magnitude.is_some());
    let settings = Mlx {
        kind: if dora { "dora" } else { "lora" }.into(),
        rank,
        scale: most_common(moved.iter().map(|m| m.scale)).unwrap_or(1.0),
        dropout: dropout(adapter),
        layers: layers(moved).len() as i64,
        base: base(adapter),
    };
    // Whole names are right whichever layers are changed; mlx_lm takes them beside its names within a layer.
    let names: BTreeSet<&str> = moved.iter().map(|m| m.name.as_str()).collect();
    let config = json!({
        "fine_tune_type": settings.kind,
        "lora_parameters": {"dropout": settings.dropout, "keys": names, "rank": rank, "scale": settings.scale},
        "model": settings.base,
        "num_layers": settings.layers,
    });
    Chosen::Invented(Settings::Mlx(settings), config)
}

fn peft(adapter: &Adapter, moved: &[Moved]) -> Chosen {
    let alpha = |m: &Moved| m.scale * m.rank as f64;
    let (usual_rank, usual_alpha) =
        (most_common(moved.iter().map(|m| m.rank)).unwrap_or(8), most_common(moved.iter().map(alpha)).unwrap_or(8.0));
    let ranks = moved.iter().filter(|m| m.rank != usual_rank).map(|m| (exact(&m.name), m.rank.into())).collect();
    let alphas = moved.iter().filter(|m| alpha(m) != usual_alpha).map(|m| (exact(&m.name), number(alpha(m)))).collect();
    let invocation = match &adapter.settings {
        Settings::Gguf { .. } => Json::Null,
        Settings::Peft(peft) => json!(peft.invocation),
        Settings::Mlx(_) => Json::Null,
    };
    let config = json!({
        "alora_invocation_tokens": invocation,
        "alpha_pattern": Json::Object(alphas),
        "auto_mapping": null,
        "base_model_name_or_path": base(adapter),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": number(usual_alpha),
        "lora_dropout": dropout(adapter),
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": usual_rank,
        "rank_pattern": Json::Object(ranks),
        "target_modules": targets(moved),
        "task_type": "CAUSAL_LM",
        "use_dora": moved.iter().any(|m| m.magnitude.is_some()),
        "use_rslora": false,
    });
    let settings = Settings::parse(config.to_string().as_bytes(), &Limits::default());
    let settings = settings.unwrap_or(Settings::Gguf { alpha: usual_alpha });
    Chosen::Invented(settings, config)
}

/// A pattern that matches this name alone.
fn exact(name: &str) -> String {
    format!("^{}", name.replace('.', "\\."))
}

/// Names of modules as PEFT selects them: short ones where every layer has the module, else whole ones.
fn targets(moved: &[Moved]) -> Vec<String> {
    let all = layers(moved);
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    moved.iter().for_each(|m| *seen.entry(last(&m.name)).or_default() += 1);
    let everywhere = |m: &Moved| seen[&last(&m.name)] == all.len() && windlass_catalog::layer_of(&m.name).is_some();
    let contiguous = all.last().is_none_or(|l| l + 1 == all.len());
    let name = |m: &Moved| if contiguous && everywhere(m) { last(&m.name) } else { m.name.clone() };
    moved.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect()
}

fn layers(moved: &[Moved]) -> Vec<usize> {
    let all: BTreeSet<usize> = moved.iter().filter_map(|m| windlass_catalog::layer_of(&m.name)).collect();
    all.into_iter().collect()
}

fn dropout(adapter: &Adapter) -> f64 {
    match &adapter.settings {
        Settings::Peft(peft) => peft.dropout,
        Settings::Mlx(mlx) => mlx.dropout,
        Settings::Gguf { .. } => 0.0,
    }
}

fn base(adapter: &Adapter) -> Option<String> {
    match &adapter.settings {
        Settings::Peft(peft) => peft.base.clone(),
        Settings::Mlx(mlx) => mlx.base.clone(),
        Settings::Gguf { .. } => None,
    }
}

fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn most_common<T: PartialEq + Copy>(values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let count = |x: T| values.clone().filter(|y| *y == x).count();
    let mut distinct: Vec<T> = Vec::new();
    for value in values.clone() {
        // Modules differ in a handful of ways; where each differs, the first is as good as any.
        if distinct.len() < 64 && !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    // Of those as common, the one that came first.
    distinct.into_iter().rev().max_by_key(|x| count(*x))
}

/// Keys and files of the target.
pub fn belongings(
    model: &Model,
    adapter: &Adapter,
    moved: &[Moved],
    outputs: &[Output],
    to: Style,
    chosen: &Chosen,
    limits: &Limits,
) -> Result<Belongings> {
    let source = &model.source;
    let mut all = Belongings::default();
    let mut files = crate::convert::side_files(source, limits)?;
    let own = files.remove(CONFIG);
    if files.remove("config.json").is_some() {
        all.warnings.push("config.json is left out: an adapter has none".into());
    }
    match to {
        Style::Gguf => {
            all.metadata = gguf_keys(model, adapter, chosen)?;
            keys::record(source, outputs, &files, &mut all, limits);
        }
        Style::Mlx | Style::Peft => {
            let text = match chosen {
                Chosen::Carried { text, .. } => text.clone(),
                Chosen::Invented(_, config) => keys::pretty(&with_invocation(config, source)),
            };
            all.files = files.into_iter().chain([(CONFIG.to_string(), text)]).collect();
            all.metadata = header(source, to);
            if to == Style::Mlx {
                record_types(source, outputs, &mut all.metadata);
            }
        }
    }
    // One that was made for a visit is not taken home.
    let own = own.filter(|_| matches!(chosen, Chosen::Invented(..)));
    descriptions(source, adapter, to, own, &mut all.metadata);
    let scale = |m: &&Moved| !(chosen.factor(m) as f32).is_finite() || !(m.scale as f32).is_finite();
    if let Some(module) = moved.iter().find(scale) {
        let problem = windlass_formats::Problem::new("bad-adapter", format!("scale {} is out of range", module.scale));
        return Err(Error::refused(source.path(), problem.tensor(&module.name)));
    }
    Ok(all)
}

/// llama.cpp's keys of an adapter, and the hyper-parameters of its base, by which its names and row orders are known.
fn gguf_keys(model: &Model, adapter: &Adapter, chosen: &Chosen) -> Result<Metadata> {
    let identity = model.identity()?;
    let mut all = identity.architecture.to_gguf(&identity.hyper);
    // Without a vocabulary of its own, the file says how large that of the base is.
    all.set(format!("{}.vocab_size", identity.architecture.gguf_name()), identity.hyper.vocab() as u32);
    all.set("general.type", "adapter");
    all.set("general.name", keys::name_of(&model.source));
    all.set("adapter.type", "lora");
    if let Settings::Gguf { alpha } = chosen.settings() {
        all.set(ALPHA, *alpha as f32);
    }
    if let Settings::Peft(peft) = &adapter.settings
        && !peft.invocation.is_empty()
    {
        all.set(INVOCATION, Value::Array(Array::U32(peft.invocation.clone())));
    }
    all.set("general.quantization_version", Value::U32(2));
    for (key, value) in foreign_keys(&model.source).iter() {
        all.set(key, value.clone());
    }
    Ok(all)
}

/// Keys of a GGUF from elsewhere that this adapter was before.
fn foreign_keys(source: &Source) -> Metadata {
    let header = keys::original_header(source);
    let own =
        header.iter().filter_map(|(k, v)| Some((k.strip_prefix(keys::KEY)?.to_string(), foreign::read(v.as_str()?)?)));
    own.collect()
}

/// The header of a safetensors file.
fn header(source: &Source, to: Style) -> Metadata {
    let mut original = keys::original_header(source);
    if source.container() == "gguf" && source.metadata().get(keys::VERSION).is_none() {
        let all = source.metadata().iter().filter_map(|(k, v)| Some((k, foreign::write(v)?)));
        all.for_each(|(k, v)| original.set(format!("{}{k}", keys::KEY), v));
    }
    let mut header = Metadata::new();
    for (key, value) in original.iter() {
        let key = if to == Style::Mlx { format!("{}{key}", keys::HEADER) } else { key.to_string() };
        header.set(key, value.clone());
    }
    // Transformers refuses a file that does not say which library its names belong to.
    if header.get("format").is_none() {
        header.set("format", if to == Style::Mlx { "mlx" } else { "pt" });
    }
    header
}

/// Types of the tensors before their scales or ranks were changed.
fn record_types(source: &Source, outputs: &[Output], header: &mut Metadata) {
    let Some(dtype) = keys::dominant_float(source) else { return };
    header.set(keys::DTYPE, dtype.name());
    let others = keys::source_dtypes(source, outputs).filter(|(_, d)| *d != dtype);
    let others: Vec<String> = others.map(|(name, d)| format!("{name}={d}")).collect();
    if !others.is_empty() {
        header.set(keys::EXCEPTIONS, others.join("\n"));
    }
}

/// Descriptions in other words than the target's: the source's own, and those that it carried.
fn descriptions(source: &Source, adapter: &Adapter, to: Style, own: Option<Vec<u8>>, target: &mut Metadata) {
    for (style, key) in [(Style::Peft, PEFT), (Style::Mlx, MLX)] {
        let own = own.as_ref().filter(|_| adapter.style == style).and_then(|text| String::from_utf8(text.clone()).ok());
        let carried = source.metadata().get(key).and_then(Value::as_str).map(String::from);
        if let (Some(text), true) = (own.or(carried), style != to) {
            target.set(key, text);
        }
    }
}

/// The tokens that wake an adapter, where only a key of a GGUF says them.
fn with_invocation(config: &Json, source: &Source) -> Json {
    let mut config = config.clone();
    if let (Some(Array::U32(tokens)), Some(Json::Object(object))) =
        (source.metadata().get(INVOCATION).and_then(Value::as_array), Some(&mut config))
        && object.contains_key("peft_type")
    {
        object.insert("alora_invocation_tokens".into(), json!(tokens));
    }
    config
}

//! What config.json says about packed weights: a setting for all layers, and other ones for some.

use std::collections::HashMap;

use windlass_quant::SchemeRef;
use windlass_tensor::Limits;

use crate::Problem;
use crate::json::{self, quote_ascii, short};

/// The object that MLX writes, and its copy under the name that other programs look for.
pub const KEYS: [&str; 2] = ["quantization", "quantization_config"];

/// How one layer is packed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// `affine`, `mxfp4`, `mxfp8` or `nvfp4`.
    pub mode: String,
    /// Bits per value.
    pub bits: u64,
    /// Values per scale.
    pub group: u64,
}

/// What is said about one layer alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// `true`: as all others.
    Default,
    /// `false`: not packed.
    Plain,
    Packed(Setting),
}

/// The checked object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantization {
    pub default: Setting,
    /// By the path of the module.
    pub layers: HashMap<String, Layer>,
}

impl Setting {
    /// The scheme that packs so.
    pub fn scheme(&self) -> Result<SchemeRef, Problem> {
        let name = match self.mode.as_str() {
            "affine" => format!("mlx{}-g{}", self.bits, self.group),
            _ if FLOAT_MODES.contains(&(self.mode.as_str(), self.bits, self.group)) => format!("mlx-{}", self.mode),
            _ => String::new(),
        };
        windlass_quant::scheme(&name).map_err(|_| {
            let message = format!(
                "mode {:?} with {} bits in groups of {} is not known: affine has 2, 3, 4, 5, 6 or 8 bits in groups of \
                 32, 64 or 128; mxfp4 is 4 bits by 32, mxfp8 8 by 32, nvfp4 4 by 16",
                short(&self.mode),
                self.bits,
                self.group
            );
            Problem::new("unknown-quantization", message)
        })
    }

    /// The setting whose scheme has this name.
    pub fn of_scheme(name: &str) -> Option<Setting> {
        let rest = name.strip_prefix("mlx")?;
        if let Some(mode) = rest.strip_prefix('-') {
            let (mode, bits, group) = FLOAT_MODES.into_iter().find(|row| row.0 == mode)?;
            return Some(Setting { mode: mode.into(), bits, group });
        }
        let (bits, group) = rest.split_once("-g")?;
        Some(Setting { mode: "affine".into(), bits: bits.parse().ok()?, group: group.parse().ok()? })
    }

    fn json(&self) -> String {
        let mode = quote_ascii(&self.mode);
        format!("\"group_size\": {}, \"bits\": {}, \"mode\": {mode}", self.group, self.bits)
    }
}

/// Modes whose bits and group are fixed.
const FLOAT_MODES: [(&str, u64, u64); 3] = [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)];

impl Quantization {
    /// The setting of a module, `None` where it is not packed.
    pub fn of(&self, module: &str) -> Option<&Setting> {
        match self.layers.get(module) {
            Some(Layer::Plain) => None,
            Some(Layer::Packed(setting)) => Some(setting),
            Some(Layer::Default) | None => Some(&self.default),
        }
    }

    /// As JSON, with the modules `layers` set apart.
    pub fn write(default: &Setting, layers: &[(&str, Setting)]) -> String {
        let mut lines = vec![default.json()];
        lines.extend(layers.iter().map(|(module, s)| format!("{}: {{{}}}", quote_ascii(module), s.json())));
        format!("{{{}}}", lines.join(", "))
    }
}

/// Parses the text of a config.json; `None` where it says nothing about MLX packing.
pub fn parse(config: &[u8], limits: &Limits) -> Result<Option<Quantization>, Problem> {
    let bad = |message: String| Problem::new("bad-config", message);
    let Some(text) = find(config, limits).map_err(bad)? else { return Ok(None) };
    let mut layers = HashMap::new();
    for member in json::members(text, limits.nesting).map_err(bad)? {
        let value = text.get(member.value).unwrap_or_default();
        let layer = match value {
            b"true" => Layer::Default,
            b"false" => Layer::Plain,
            _ if value.starts_with(b"{") => Layer::Packed(setting(value, limits).map_err(|p| p.tensor(&member.key))?),
            _ => continue,
        };
        layers.insert(member.key, layer);
    }
    Ok(Some(Quantization { default: setting(text, limits)?, layers }))
}

/// Whether a config.json speaks of MLX packing, well or badly.
pub fn is_quantized(config: &[u8], limits: &Limits) -> bool {
    matches!(find(config, limits), Ok(Some(_)))
}

/// The object itself. `quantization_config` belongs to MLX if it names no other method.
fn find<'a>(config: &'a [u8], limits: &Limits) -> Result<Option<&'a [u8]>, String> {
    let members = json::members(config, limits.nesting)?;
    for key in KEYS {
        let Some(member) = members.iter().find(|m| m.key == key) else { continue };
        let text = config.get(member.value.clone()).unwrap_or_default();
        if !text.starts_with(b"{") {
            continue;
        }
        let fields = json::members(text, limits.nesting)?;
        let has = |name: &str| fields.iter().any(|f| f.key == name);
        if (has("bits") || has("group_size")) && !(key == KEYS[1] && has("quant_method")) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Mode, bits and group of one object; what is absent is as MLX would take it for the mode.
fn setting(text: &[u8], limits: &Limits) -> Result<Setting, Problem> {
    let bad = |message: String| Problem::new("bad-config", message);
    let (mut mode, mut bits, mut group) = (None, None, None);
    for member in json::members(text, limits.nesting).map_err(bad)? {
        let value = text.get(member.value).unwrap_or_default();
        let wrong = |e| bad(format!("{:?} in the quantization of config.json: {e}", member.key));
        match member.key.as_str() {
            "mode" => mode = serde_json::from_slice::<Option<String>>(value).map_err(wrong)?,
            "bits" => bits = serde_json::from_slice::<Option<u64>>(value).map_err(wrong)?,
            "group_size" => group = serde_json::from_slice::<Option<u64>>(value).map_err(wrong)?,
            "global_scale" if value == b"true" => {
                let message = "is packed with a global scale, which is not supported";
                return Err(Problem::new("unknown-quantization", message));
            }
            _ => {}
        }
    }
    let mode = mode.unwrap_or_else(|| "affine".into());
    let usual = FLOAT_MODES.iter().find(|row| row.0 == mode).map_or((4, 64), |row| (row.1, row.2));
    let setting = Setting { mode, bits: bits.unwrap_or(usual.0), group: group.unwrap_or(usual.1) };
    setting.scheme().map(|_| setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Option<Quantization>, Problem> {
        parse(config.as_bytes(), &Limits::default())
    }

    #[test]
    fn settings_and_schemes_name_each_other() {
        for scheme in windlass_quant::schemes().iter().filter(|s| s.family() == windlass_quant::Family::Mlx) {
            let setting = Setting::of_scheme(scheme.name()).unwrap();
            assert_eq!(setting.scheme().unwrap().name(), scheme.name());
        }
        assert_eq!(Setting::of_scheme("q4_0"), None);
    }

    #[test]
    fn layers_differ_from_the_default() {
        let config = r#"{"time": Infinity, "quantization": {"group_size": 64, "bits": 4, "mode": "affine",
            "a": {"bits": 8, "group_size": 32}, "b": false, "c": true, "d": {"mode": "mxfp4"}}}"#;
        let found = read(config).unwrap().unwrap();
        let scheme = |module: &str| found.of(module).map(|s| s.scheme().unwrap().name());
        assert_eq!(scheme("x"), Some("mlx4-g64"));
        assert_eq!(scheme("a"), Some("mlx8-g32"));
        assert_eq!(scheme("b"), None);
        assert_eq!(scheme("c"), Some("mlx4-g64"));
        assert_eq!(scheme("d"), Some("mlx-mxfp4"));
    }

    #[test]
    fn other_methods_are_not_mlx() {
        let gptq = r#"{"quantization_config": {"bits": 4, "group_size": 128, "quant_method": "gptq"}}"#;
        assert_eq!(read(gptq), Ok(None));
        let mlx = r#"{"quantization_config": {"bits": 4, "group_size": 128}}"#;
        assert_eq!(read(mlx).unwrap().unwrap().default.group, 128);
    }

    #[test]
    fn what_mlx_does_not_have_is_refused_with_the_reason() {
        for fields in [
            r#""bits": 7, "group_size": 64"#,
            r#""bits": 4, "group_size": 48"#,
            r#""bits": 4, "group_size": 64, "mode": "mxfp4""#,
            r#""bits": 4, "group_size": 64, "mode": "int4""#,
            r#""bits": 4, "group_size": 64, "x": {"bits": 1}"#,
            r#""bits": 4, "group_size": 64, "x": {"global_scale": true}"#,
        ] {
            let problem = read(&format!("{{\"quantization\": {{{fields}}}}}")).unwrap_err();
            assert_eq!(problem.code, "unknown-quantization", "{fields}");
        }
        for fields in [r#""bits": -4"#, r#""bits": 4.0"#, r#""bits": "4""#, r#""bits": 4, "bits": 8"#] {
            let problem = read(&format!("{{\"quantization\": {{{fields}}}}}")).unwrap_err();
            assert_eq!(problem.code, "bad-config", "{fields}");
        }
    }
}

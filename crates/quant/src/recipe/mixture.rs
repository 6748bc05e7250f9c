//! The file types of llama-quantize: which GGML type each tensor gets.

use super::llama::{block, block_size, check_importance, fitting, is_embedding, may_quantize};
use super::{ModelFacts, TensorFacts};
use crate::Error;

/// A file type.
#[derive(Debug)]
pub struct FileType {
    /// Lower case.
    pub name: &'static str,
    /// In `general.file_type`.
    pub number: u32,
    /// What a tensor gets that nothing else is said of.
    pub default: &'static str,
}

const fn file_type(name: &'static str, number: u32, default: &'static str) -> FileType {
    FileType { name, number, default }
}

/// All file types, and two that llama-quantize has no name for: `mxfp4` is `mxfp4_moe` for a model with experts and MXFP4
/// for the matrices of one without; `nvfp4`.
pub static FILE_TYPES: [FileType; 32] = [
    file_type("q4_0", 2, "q4_0"),
    file_type("q4_1", 3, "q4_1"),
    file_type("q5_0", 8, "q5_0"),
    file_type("q5_1", 9, "q5_1"),
    file_type("q8_0", 7, "q8_0"),
    file_type("q2_k", 10, "q2_k"),
    file_type("q2_k_s", 21, "q2_k"),
    file_type("q3_k_s", 11, "q3_k"),
    file_type("q3_k_m", 12, "q3_k"),
    file_type("q3_k_l", 13, "q3_k"),
    file_type("q4_k_s", 14, "q4_k"),
    file_type("q4_k_m", 15, "q4_k"),
    file_type("q5_k_s", 16, "q5_k"),
    file_type("q5_k_m", 17, "q5_k"),
    file_type("q6_k", 18, "q6_k"),
    file_type("iq1_s", 24, "iq1_s"),
    file_type("iq1_m", 31, "iq1_m"),
    file_type("iq2_xxs", 19, "iq2_xxs"),
    file_type("iq2_xs", 20, "iq2_xs"),
    file_type("iq2_s", 28, "iq2_xs"),
    file_type("iq2_m", 29, "iq2_s"),
    file_type("iq3_xxs", 23, "iq3_xxs"),
    file_type("iq3_xs", 22, "iq3_s"),
    file_type("iq3_s", 26, "iq3_s"),
    file_type("iq3_m", 27, "iq3_s"),
    file_type("iq4_nl", 25, "iq4_nl"),
    file_type("iq4_xs", 30, "iq4_xs"),
    file_type("tq1_0", 36, "tq1_0"),
    file_type("tq2_0", 37, "tq2_0"),
    file_type("mxfp4_moe", 38, "mxfp4"),
    file_type("mxfp4", 38, "mxfp4"),
    file_type("nvfp4", 39, "nvfp4"),
];

impl FileType {
    /// By name; `q3_k`, `q4_k` and `q5_k` are the medium ones, as in llama-quantize.
    pub fn named(name: &str) -> Option<&'static FileType> {
        let name = match name {
            "q3_k" => "q3_k_m",
            "q4_k" => "q4_k_m",
            "q5_k" => "q5_k_m",
            name => name,
        };
        FILE_TYPES.iter().find(|f| f.name == name)
    }
}

/// What a tensor is for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Output,
    Embedding,
    /// Values, alone or fused with others.
    Value,
    Key,
    Query,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

impl Kind {
    fn of(name: &str) -> Kind {
        let has = |part| name.contains(part);
        match name {
            "output.weight" => Kind::Output,
            _ if is_embedding(name) => Kind::Embedding,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Kind::Value,
            _ if has("attn_k.weight") => Kind::Key,
            _ if has("attn_q.weight") => Kind::Query,
            _ if has("attn_output.weight") => Kind::AttentionOutput,
            _ if has("ffn_up") => Kind::Up,
            _ if has("ffn_gate") => Kind::Gate,
            _ if has("ffn_down") => Kind::Down,
            _ => Kind::Other,
        }
    }
}

/// Chooses for one model, tensor by tensor.
pub struct Chooser<'a> {
    file: &'static FileType,
    model: &'a ModelFacts,
    tied: bool,
    values: usize,
    /// How many of the kind came before.
    values_seen: usize,
    downs_seen: usize,
    gates_seen: usize,
    ups_seen: usize,
}

impl<'a> Chooser<'a> {
    /// For the model that these are all tensors of.
    pub fn new(file: &'static FileType, tensors: &[TensorFacts], model: &'a ModelFacts) -> Chooser<'a> {
        let kinds = || tensors.iter().map(|t| Kind::of(t.name));
        let file = if file.name == "mxfp4" && model.experts > 0 { experts_only(file) } else { file };
        Chooser {
            file,
            model,
            tied: model.tied && !kinds().any(|k| k == Kind::Output),
            values: kinds().filter(|k| *k == Kind::Value).count(),
            values_seen: 0,
            downs_seen: 0,
            gates_seen: 0,
            ups_seen: 0,
        }
    }

    /// The next tensor's type, `None` if it is not quantized. Tensors come layer by layer and by name within a layer.
    /// A type that is of no use without an importance matrix is an error where there is none.
    pub fn choose(&mut self, tensor: &TensorFacts) -> Result<Option<&'static str>, Error> {
        let wanted = self.wanted(tensor)?;
        if let Some(name) = wanted {
            check_importance(tensor, name, self.file.name == "q2_k_s", self.model)?;
        }
        Ok(wanted)
    }

    /// As [`Chooser::choose`], with or without importance.
    pub fn wanted(&mut self, tensor: &TensorFacts) -> Result<Option<&'static str>, Error> {
        if !may_quantize(tensor) {
            return Ok(None);
        }
        let columns = tensor.shape.last().copied().unwrap_or(0);
        Ok(Some(fitting(self.wish(tensor, columns)?, columns)))
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.file.name)
    }

    fn grouped(&self) -> bool {
        self.model.kv_heads > 0 && self.model.heads / self.model.kv_heads >= 4
    }

    fn falcon(&self) -> bool {
        self.model.architecture == "falcon"
    }

    /// Models of 70 billion parameters share each value head among eight; a few more bits there cost little.
    fn is_70b(&self) -> bool {
        let m = self.model;
        m.layers == 80
            && match m.architecture.as_str() {
                "llama" => m.experts != 8 && m.heads != m.kv_heads,
                "qwen2" | "deci" => true,
                _ => false,
            }
    }

    /// The type before the shape has a say.
    fn wish(&mut self, tensor: &TensorFacts, columns: usize) -> Result<&'static str, Error> {
        let kind = Kind::of(tensor.name);
        if kind == Kind::Output || self.tied && kind == Kind::Embedding {
            return Ok(self.output(columns));
        }
        if self.is(&["mxfp4_moe"]) {
            return Ok(self.experts(tensor, kind));
        }
        if kind == Kind::Embedding {
            return Ok(self.embedding());
        }
        if self.is(&["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m"]) {
            return Ok(self.lowest(kind));
        }
        match kind {
            Kind::Value => Ok(self.value()),
            Kind::Key | Kind::Query => Ok(self.key_or_query(kind)),
            Kind::AttentionOutput => Ok(self.attention_output()),
            Kind::Down => self.down(tensor),
            Kind::Gate | Kind::Up => self.gate_or_up(tensor, kind),
            _ => Ok(self.file.default),
        }
    }

    fn output(&self, columns: usize) -> &'static str {
        if self.is(&["mxfp4_moe"]) || self.falcon() || !columns.is_multiple_of(block_size(self.file.default)) {
            return "q8_0";
        }
        match self.file.name {
            "iq2_xxs" | "iq2_xs" | "iq3_xxs" | "iq1_s" | "iq2_s" | "iq2_m" | "iq1_m" => "q5_k",
            "q8_0" => "q8_0",
            _ => "q6_k",
        }
    }

    /// Stacks of experts alone are MXFP4.
    fn experts(&self, tensor: &TensorFacts, kind: Kind) -> &'static str {
        let stacked = tensor.shape.len().checked_sub(3).is_some_and(|outer| tensor.shape[outer] > 1);
        // This architecture stacks projections of its attention too.
        let role = self.model.architecture != "bailingmoe3" || matches!(kind, Kind::Up | Kind::Gate | Kind::Down);
        if stacked && role { "mxfp4" } else { "q8_0" }
    }

    fn embedding(&self) -> &'static str {
        match self.file.name {
            "iq2_xxs" | "iq2_xs" | "iq1_s" | "iq1_m" => "q2_k",
            "iq2_s" | "iq2_m" | "iq3_xxs" => "iq3_s",
            "tq1_0" | "tq2_0" => "q4_k",
            _ => self.file.default,
        }
    }

    /// One and two bits: the sensitive kinds get more.
    fn lowest(&mut self, kind: Kind) -> &'static str {
        let better = if self.is(&["iq2_s", "iq2_m"]) { "iq3_s" } else { "q2_k" };
        match kind {
            Kind::Value => {
                self.values_seen += 1;
                if self.grouped() || self.model.experts >= 4 { "q4_k" } else { better }
            }
            Kind::Key if self.model.experts == 8 => "q4_k",
            Kind::Down => {
                self.downs_seen += 1;
                if self.downs_seen - 1 < self.model.layers / 8 { better } else { self.file.default }
            }
            Kind::AttentionOutput if self.model.experts == 8 => "q5_k",
            Kind::AttentionOutput => match self.file.name {
                "iq1_s" | "iq1_m" => "iq2_xxs",
                "iq2_s" | "iq2_m" => "iq3_s",
                _ => self.file.default,
            },
            _ => self.file.default,
        }
    }

    fn value(&mut self) -> &'static str {
        let seen = self.values_seen;
        self.values_seen += 1;
        let grouped = self.grouped();
        let chosen = match self.file.name {
            "q2_k" => {
                if grouped {
                    "q4_k"
                } else {
                    "q3_k"
                }
            }
            "q2_k_s" if grouped => "q4_k",
            "iq3_xxs" if grouped => "q4_k",
            "iq3_xxs" => {
                if self.model.has_imatrix {
                    "iq3_xxs"
                } else {
                    "iq3_s"
                }
            }
            "iq3_xs" | "iq3_s" if grouped => "q4_k",
            "iq3_m" => "q4_k",
            "q3_k_m" => {
                if seen < 2 {
                    "q5_k"
                } else {
                    "q4_k"
                }
            }
            "q3_k_l" => "q5_k",
            "iq4_nl" | "iq4_xs" if grouped => "q5_k",
            "q4_k_m" | "q5_k_m" if more_bits(seen, self.values) => "q6_k",
            "q4_k_s" if seen < 4 => "q5_k",
            _ => self.file.default,
        };
        match chosen {
            _ if self.model.experts == 8 => "q8_0",
            "q3_k" | "q4_k" if self.is_70b() => "q5_k",
            chosen => chosen,
        }
    }

    fn key_or_query(&self, kind: Kind) -> &'static str {
        match self.file.name {
            _ if kind == Kind::Key && self.model.experts == 8 => "q8_0",
            "iq3_xs" => "iq3_xxs",
            "iq3_xxs" => "iq2_s",
            _ => self.file.default,
        }
    }

    fn attention_output(&self) -> &'static str {
        match self.file.name {
            "q3_k_l" if self.falcon() => "q4_k",
            _ if self.falcon() => self.file.default,
            "q2_k" | "iq3_xs" | "iq3_xxs" | "q3_k_s" | "q3_k_m" | "iq4_nl" | "q4_k_s" | "q4_k_m" | "iq3_s"
            | "iq3_m" | "iq4_xs"
                if self.model.experts == 8 =>
            {
                "q5_k"
            }
            _ if self.model.experts == 8 => self.file.default,
            "q2_k" => "q3_k",
            "iq3_xxs" => "iq3_s",
            "q3_k_m" | "iq3_m" => "q4_k",
            "q3_k_l" => "q5_k",
            _ => self.file.default,
        }
    }

    fn down(&mut self, tensor: &TensorFacts) -> Result<&'static str, Error> {
        let layer = self.layer(tensor, self.downs_seen)?;
        self.downs_seen += 1;
        let layers = self.model.layers;
        let (first, more) = (layer < layers / 8, more_bits(layer, layers));
        let (falcon, imatrix) = (self.falcon(), self.model.has_imatrix);
        Ok(match self.file.name {
            "q2_k" => "q3_k",
            "q2_k_s" if first => "q4_k",
            "iq3_xxs" if !imatrix => {
                if first {
                    "q4_k"
                } else {
                    "q3_k"
                }
            }
            "q3_k_m" if layer < layers / 16 => "q5_k",
            "q3_k_m" => {
                if !falcon || more {
                    "q4_k"
                } else {
                    "q3_k"
                }
            }
            "iq3_m" if first || self.model.experts == 8 && more => "q4_k",
            "q3_k_l" => {
                if falcon {
                    "q4_k"
                } else {
                    "q5_k"
                }
            }
            "q4_k_m" if falcon && layer < layers / 16 => "q6_k",
            "q4_k_m" if more => {
                if falcon {
                    "q5_k"
                } else {
                    "q6_k"
                }
            }
            "iq4_nl" | "iq4_xs" if first && !imatrix => "q5_k",
            "q5_k_m" if more => "q6_k",
            "q4_k_s" if !falcon && first => "q5_k",
            "q4_0" if imatrix && first => "q4_1",
            "q5_0" if imatrix && first => "q5_1",
            _ => self.file.default,
        })
    }

    fn gate_or_up(&mut self, tensor: &TensorFacts, kind: Kind) -> Result<&'static str, Error> {
        let seen = if kind == Kind::Gate { &mut self.gates_seen } else { &mut self.ups_seen };
        let before = *seen;
        *seen += 1;
        let (layer, layers) = (self.layer(tensor, before)?, self.model.layers);
        let middle = layer >= layers / 8 && layer < 7 * layers / 8;
        Ok(if self.is(&["iq3_xs"]) && middle { "iq3_xxs" } else { self.file.default })
    }

    /// The layer is the count of tensors of the kind, but with experts the number in the name.
    fn layer(&self, tensor: &TensorFacts, seen: usize) -> Result<usize, Error> {
        if self.model.experts <= 1 {
            return Ok(seen);
        }
        let refuse = |what: String| Error::Recipe(format!("{:?} {what}", tensor.name));
        let layer = block(tensor.name).ok_or_else(|| refuse("does not start with the number of its block".into()))?;
        if layer < self.model.layers {
            return Ok(layer);
        }
        Err(refuse(format!("is of block {layer}, but the model has {}", self.model.layers)))
    }
}

/// The first and the last eighth of the layers, and every third between.
pub fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

fn experts_only(file: &'static FileType) -> &'static FileType {
    FileType::named("mxfp4_moe").unwrap_or(file)
}

//! Adapters: low-rank changes to a model (LoRA, DoRA), as PEFT, MLX and llama.cpp store them.
//!
//! All three keep two factors for each changed module, A and B, and add `scale * B A` to its matrix. They differ in names,
//! in which factor is stored transposed, and in how they say the scale. Here A is `[rank, inputs]` and B is
//! `[outputs, rank]`; of an embedding, which maps a token to a row, the inputs are the tokens.

use std::collections::BTreeMap;

use windlass_tensor::{Limits, Value};

use crate::{Entry, Error, Problem, Source};

mod config;

pub use config::{MAX_RANK, Mlx, Peft, Settings};

/// The file that describes an adapter, PEFT's and MLX's alike.
pub const CONFIG: &str = "adapter_config.json";
/// The file that holds PEFT's tensors.
pub const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
/// The same as older PEFT writes it, by `torch.save`.
pub const PEFT_PICKLE: &str = "adapter_model.bin";
/// The file that holds MLX's tensors.
pub const MLX_WEIGHTS: &str = "adapters.safetensors";
/// What PEFT writes before the name of every module.
pub const PEFT_ROOT: &str = "base_model.model.";

/// Whose words an adapter is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Peft,
    Mlx,
    Gguf,
}

/// What kind of module is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Linear,
    Embedding,
    /// All experts of a layer together: both factors have the expert as their first dimension.
    Experts,
}

/// What a tensor of an adapter is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    A,
    B,
    /// DoRA's length of every row.
    Magnitude,
}

/// An adapter, read and checked.
#[derive(Debug)]
pub struct Adapter {
    pub style: Style,
    pub settings: Settings,
    /// By name.
    pub modules: Vec<Module>,
    /// Indices of the tensors that are not of a module above: whole copies of base tensors, biases.
    pub others: Vec<usize>,
}

/// The change of one module.
#[derive(Debug, Clone)]
pub struct Module {
    /// The base's module in the style's own words: `model.layers.0.self_attn.q_proj`, `blk.0.attn_q`.
    pub name: String,
    pub form: Form,
    /// Indices of the tensors.
    pub a: usize,
    pub b: usize,
    pub magnitude: Option<usize>,
    pub rank: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// 1 unless the form is [`Form::Experts`].
    pub experts: usize,
    /// What B A is multiplied with.
    pub scale: f64,
}

impl Style {
    /// Whether the factors A and B of such a module are stored with their last two dimensions exchanged.
    pub fn transposes(self, form: Form) -> [bool; 2] {
        match (self, form) {
            (_, Form::Experts) | (Style::Peft, _) | (Style::Gguf, Form::Linear) => [false, false],
            (Style::Gguf, Form::Embedding) => [true, false],
            (Style::Mlx, _) => [true, true],
        }
    }

    /// The name of a tensor of the module called `module`.
    pub fn tensor_name(self, module: &str, form: Form, factor: Factor) -> String {
        match (self, form, factor) {
            (Style::Peft, Form::Embedding, Factor::A) => format!("{PEFT_ROOT}{module}.lora_embedding_A"),
            (Style::Peft, Form::Embedding, Factor::B) => format!("{PEFT_ROOT}{module}.lora_embedding_B"),
            (Style::Peft, _, Factor::A) => format!("{PEFT_ROOT}{module}.lora_A.weight"),
            (Style::Peft, _, Factor::B) => format!("{PEFT_ROOT}{module}.lora_B.weight"),
            (Style::Peft, _, Factor::Magnitude) => format!("{PEFT_ROOT}{module}.lora_magnitude_vector"),
            (Style::Mlx, _, Factor::A) => format!("{module}.lora_a"),
            (Style::Mlx, _, Factor::B) => format!("{module}.lora_b"),
            (Style::Mlx, _, Factor::Magnitude) => format!("{module}.m"),
            (Style::Gguf, _, Factor::A) => format!("{module}.weight.lora_a"),
            (Style::Gguf, _, Factor::B) => format!("{module}.weight.lora_b"),
            (Style::Gguf, _, Factor::Magnitude) => format!("{module}.weight.lora_m"),
        }
    }

    /// The module a tensor belongs to, and as what; `None` for a tensor that belongs to none.
    fn parse(self, tensor: &str) -> Option<(&str, Form, Factor)> {
        const PEFT: [(&str, Form, Factor); 6] = [
            (".lora_A.weight", Form::Linear, Factor::A),
            (".lora_B.weight", Form::Linear, Factor::B),
            (".lora_embedding_A", Form::Embedding, Factor::A),
            (".lora_embedding_B", Form::Embedding, Factor::B),
            (".lora_magnitude_vector", Form::Linear, Factor::Magnitude),
            (".lora_magnitude_vector.weight", Form::Linear, Factor::Magnitude),
        ];
        const MLX: [(&str, Form, Factor); 3] = [
            (".lora_a", Form::Linear, Factor::A),
            (".lora_b", Form::Linear, Factor::B),
            (".m", Form::Linear, Factor::Magnitude),
        ];
        const GGUF: [(&str, Form, Factor); 2] =
            [(".weight.lora_a", Form::Linear, Factor::A), (".weight.lora_b", Form::Linear, Factor::B)];
        let (name, endings): (_, &[_]) = match self {
            Style::Peft => (tensor.strip_prefix(PEFT_ROOT)?, &PEFT),
            Style::Mlx => (tensor, &MLX),
            Style::Gguf => (tensor, &GGUF),
        };
        let (module, form, factor) =
            endings.iter().find_map(|(ending, form, factor)| Some((name.strip_suffix(ending)?, *form, *factor)))?;
        let last = module.rsplit('.').next().unwrap_or(module);
        let embedding = match self {
            Style::Peft => form == Form::Embedding,
            Style::Mlx => MLX_EMBEDDINGS.contains(&last),
            Style::Gguf => last == "token_embd",
        };
        Some((module, if embedding { Form::Embedding } else { form }, factor)).filter(|_| !module.is_empty())
    }
}

/// How embeddings are called in the models of mlx-lm.
const MLX_EMBEDDINGS: [&str; 6] =
    ["embed_tokens", "wte", "embedding", "word_embeddings", "position_embeddings", "token_type_embeddings"];

/// Reads the description of an adapter and pairs its tensors; `None` if `source` is not an adapter.
///
/// # Errors
/// A description that is not one, a factor without the other, and ranks that do not agree.
pub fn read(source: &Source, limits: &Limits) -> Result<Option<Adapter>, Error> {
    let Some((style, settings)) = settings(source, limits)? else { return Ok(None) };
    if settings.not_lora().is_some() {
        return Ok(Some(Adapter { style, settings, modules: vec![], others: (0..source.tensors().len()).collect() }));
    }
    let (found, others) = group(source, style)?;
    let mut modules = Vec::with_capacity(found.len());
    for (name, parts) in found {
        modules.push(parts.check(source, style, name, &settings)?);
    }
    Ok(Some(Adapter { style, settings, modules, others }))
}

/// Whether a target with these side files is an adapter.
pub(crate) fn is_described(files: &[(String, Vec<u8>)]) -> bool {
    let has = |wanted: &str| files.iter().any(|(name, _)| name == wanted);
    has(CONFIG) && !has("config.json")
}

/// Whether a folder with these files holds the adapter of MLX rather than PEFT's.
pub(crate) fn is_mlx(probe: &crate::Probe) -> bool {
    if !probe.has(CONFIG) || !probe.has(MLX_WEIGHTS) {
        return false;
    }
    let limits = Limits::default();
    let text = crate::files::read_small(&probe.path.join(CONFIG), limits.side_file_bytes);
    text.is_ok_and(|text| matches!(Settings::parse(&text, &limits), Ok(Settings::Mlx(_))))
}

fn settings(source: &Source, limits: &Limits) -> Result<Option<(Style, Settings)>, Error> {
    if source.container() == "gguf" {
        if source.metadata().get("general.type").and_then(Value::as_str) != Some("adapter") {
            return Ok(None);
        }
        let settings = Settings::of_gguf(source.metadata()).map_err(|p| Error::refused(source.path(), p))?;
        return Ok(Some((Style::Gguf, settings)));
    }
    let of_adapter = |name: &str| name.starts_with("adapter");
    let part = source.parts().first().and_then(|p| p.path().file_name()?.to_str());
    if source.parts().len() != 1 || !part.is_some_and(of_adapter) {
        return Ok(None);
    }
    let Some(path) = source.side_files().get(CONFIG) else { return Ok(None) };
    let text = crate::files::read_small(path, limits.side_file_bytes)?;
    let settings = Settings::parse(&text, limits).map_err(|problem| Error::refused(path, problem))?;
    let style = if matches!(settings, Settings::Mlx(_)) { Style::Mlx } else { Style::Peft };
    Ok(Some((style, settings)))
}

/// The tensors of one module.
#[derive(Default)]
struct Parts {
    form: Option<Form>,
    tensors: BTreeMap<Factor, usize>,
}

type Found<'a> = BTreeMap<&'a str, Parts>;

fn group(source: &Source, style: Style) -> Result<(Found<'_>, Vec<usize>), Error> {
    let (mut found, mut others) = (Found::new(), Vec::new());
    for (index, entry) in source.tensors().iter().enumerate() {
        let Some((module, form, factor)) = style.parse(entry.name()) else {
            others.push(index);
            continue;
        };
        let parts = found.entry(module).or_default();
        if factor != Factor::Magnitude {
            parts.form = Some(form);
        }
        if parts.tensors.insert(factor, index).is_some() {
            let message = format!("module {module:?} has two tensors for {factor:?}");
            return Err(refuse(source, entry, Problem::new("duplicate-tensor", message)));
        }
    }
    Ok((found, others))
}

impl Parts {
    fn check(&self, source: &Source, style: Style, name: &str, settings: &Settings) -> Result<Module, Error> {
        let index = |factor| {
            self.tensors.get(&factor).copied().ok_or_else(|| {
                let present = self.tensors.values().next().map(|i| &source.tensors()[*i]);
                let message = format!("the factor {factor:?} of module {name:?} is missing");
                let problem = Problem::new("missing-tensor", message).help("the adapter is incomplete: save it again");
                match present {
                    Some(entry) => refuse(source, entry, problem),
                    None => Error::refused(source.path(), problem),
                }
            })
        };
        let (a, b) = (index(Factor::A)?, index(Factor::B)?);
        let [first, second] = [a, b].map(|i| &source.tensors()[i]);
        let mut form = self.form.unwrap_or(Form::Linear);
        if first.shape().len() == 3 && style != Style::Peft {
            form = Form::Experts;
        }
        let [turned_a, turned_b] = style.transposes(form);
        let (experts, rank, inputs) = dimensions(source, first, form, turned_a)?;
        let (experts_b, outputs, rank_b) = dimensions(source, second, form, turned_b)?;
        if rank != rank_b || experts != experts_b {
            let message =
                format!("has rank {rank_b} (of {experts_b}), but {:?} has rank {rank} (of {experts})", first.name());
            return Err(refuse(source, second, Problem::new("rank-mismatch", message)));
        }
        if rank == 0 || rank > MAX_RANK {
            let message = format!("has rank {rank}, expected 1 to {MAX_RANK}");
            return Err(refuse(source, first, Problem::new("bad-rank", message)));
        }
        if let Some(expected) = settings.rank(name).filter(|r| *r != rank) {
            let message = format!("has rank {rank}, but {CONFIG} says {expected}");
            return Err(refuse(source, first, Problem::new("rank-mismatch", message)));
        }
        let magnitude = self.tensors.get(&Factor::Magnitude).copied();
        if let Some(entry) = magnitude.map(|i| &source.tensors()[i]) {
            let expected = if style == Style::Mlx && form == Form::Embedding { inputs } else { outputs };
            if entry.shape() != [expected] {
                let message = format!("expected shape [{expected}], found {:?}", entry.shape());
                return Err(refuse(source, entry, Problem::new("wrong-shape", message)));
            }
        }
        let scale = settings.scale(name, rank);
        Ok(Module { name: name.into(), form, a, b, magnitude, rank, inputs, outputs, experts, scale })
    }
}

/// Experts, rows and columns of a factor, as if it were not stored transposed.
fn dimensions(source: &Source, entry: &Entry, form: Form, turned: bool) -> Result<(usize, usize, usize), Error> {
    let (experts, rows, columns) = match (entry.shape(), form) {
        ([rows, columns], Form::Linear | Form::Embedding) => (1, *rows, *columns),
        ([experts, rows, columns], Form::Experts) => (*experts, *rows, *columns),
        (shape, _) => {
            let dimensions = if form == Form::Experts { 3 } else { 2 };
            let message = format!("expected {dimensions} dimensions, found shape {shape:?}");
            return Err(refuse(source, entry, Problem::new("wrong-shape", message)));
        }
    };
    Ok(if turned { (experts, columns, rows) } else { (experts, rows, columns) })
}

fn refuse(source: &Source, entry: &Entry, problem: Problem) -> Error {
    Error::refused(source.path(), problem.tensor(entry.name()))
}

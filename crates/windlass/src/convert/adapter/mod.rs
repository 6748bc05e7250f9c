//! Adapters from container to container: their factors, their scales, their description.
//!
//! PEFT says a scale for each module, llama.cpp one alpha that is divided by each module's rank, MLX one scale and one rank.
//! What a target cannot say goes into B, or is padded with zeros, and travels in keys, so that there and back is equal.

mod factor;
mod modules;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use windlass_catalog::Convention;
use windlass_formats::adapter::{Adapter, Form, Module, Settings, Style};
use windlass_formats::{ContainerRef, Problem, Source, adapter};
use windlass_runtime::memory::Pool;
use windlass_tensor::{DType, Element};

use super::belongings::{Belongings, Originals};
use super::names::{Content, Output, Segment};
use crate::rows::{Reader, rows_and_columns};
use crate::{Code, Error, Model, Result};
use modules::{Base, Moved, move_modules};

pub use factor::Factor;

/// Scales that differ by less are the same: llama.cpp keeps its alpha as an f32.
const SAME: f64 = 1e-7;

/// Everything of the target but its layout.
pub struct Carried {
    pub outputs: Vec<Output>,
    pub elements: Vec<Element>,
    pub belongings: Belongings,
}

/// Whose words a container uses for adapters.
pub fn style_of(container: ContainerRef) -> Style {
    match container.convention() {
        Convention::Gguf => Style::Gguf,
        Convention::Mlx => Style::Mlx,
        Convention::Hf => Style::Peft,
    }
}

/// The convention of the base's names in a style.
pub fn convention(style: Style) -> Convention {
    match style {
        Style::Gguf => Convention::Gguf,
        Style::Mlx => Convention::Mlx,
        Style::Peft => Convention::Hf,
    }
}

/// Carries an adapter into the words of another container; `None` if the model is not one, or stays in its words.
pub fn carry(
    model: &Model,
    container: ContainerRef,
    target: &Path,
    options: &super::Options,
) -> Result<Option<Carried>> {
    let (to, limits) = (style_of(container), &options.limits);
    if model.adapter.is_some() && matches!(container.name(), "npz" | "pytorch") {
        let message = format!("{} has no way to describe an adapter", container.name());
        return Err(Error::usage(message).help("choose --to safetensors (PEFT's folder), mlx or gguf"));
    }
    let Some(adapter) = model.adapter.as_ref().filter(|adapter| adapter.style != to) else { return Ok(None) };
    if to != Style::Gguf && target.extension().is_some_and(|e| e == "safetensors") {
        let message = "an adapter is a folder: one file has no place for its description";
        return Err(Error::usage(message).help("name a folder to write"));
    }
    let source = &model.source;
    let mut warnings = check_sayable(source, adapter, to)?;
    let moved = move_modules(source, model.identity.as_ref(), adapter, to)?;
    let carried = words::carried_settings(source, to, limits);
    let settings = match carried {
        Some(settings) if fits(source, &settings, &moved)? => settings,
        Some(_) => {
            warnings.push("the adapter was changed since it was converted, so its description is written anew".into());
            words::invent(adapter, &moved, to, &mut warnings)
        }
        None => words::invent(adapter, &moved, to, &mut warnings),
    };
    let (mut outputs, mut elements) = (Vec::new(), Vec::new());
    let mut folded = Vec::new();
    for module in &moved {
        let factor = settings.factor(module);
        if factor != 1.0 {
            folded.push((module.name.as_str(), factor));
        }
        let made = factors(source, module, adapter.style, to, &settings, factor);
        if let Some((output, _)) = made.iter().find(|(_, _)| spread(module) && !made.iter().all(|(o, _)| is_plain(o))) {
            let message = "several modules become one here, and their factors cannot stay as they are";
            return Err(Error::refused(source.path(), Problem::new("mixed-modules", message).tensor(&output.name)));
        }
        for (output, factor) in made {
            elements.push(element(source, &output, container, factor)?);
            outputs.push(output);
        }
    }
    if options.scheme.is_some() || options.recipe.is_some() {
        elements = chosen_elements(model, &outputs, container, options)?;
    }
    warnings.extend(folding_warning(&folded));
    let belongings = words::belongings(model, adapter, &moved, &outputs, to, &settings, limits)?;
    warnings.extend(belongings.warnings);
    Ok(Some(Carried { outputs, elements, belongings: Belongings { warnings, ..belongings } }))
}

/// Whether the factors of a module come from several tensors of the source.
fn spread(module: &Moved) -> bool {
    let one = |segments: &[Segment]| segments.windows(2).all(|pair| pair[0].entry == pair[1].entry);
    !one(&module.a) || !one(&module.b)
}

fn is_plain(output: &Output) -> bool {
    matches!(output.content, Content::Rows(_))
}

/// What the target says of scales and ranks.
pub enum Chosen {
    /// A description as it was before, taken along in the source's keys.
    Carried { settings: Settings, text: Vec<u8> },
    /// One made for this adapter.
    Invented(Settings, serde_json::Value),
}

impl Chosen {
    fn settings(&self) -> &Settings {
        match self {
            Chosen::Carried { settings, .. } | Chosen::Invented(settings, _) => settings,
        }
    }

    /// The rank of this module in the target.
    fn rank(&self, module: &Moved) -> usize {
        self.settings().rank(&module.name).unwrap_or(module.rank)
    }

    /// What B must be multiplied with, so that the target's scale gives what the source's gave.
    fn factor(&self, module: &Moved) -> f64 {
        let target = self.settings().scale(&module.name, self.rank(module));
        let factor = if target == 0.0 { 1.0 } else { module.scale / target };
        if (factor - 1.0).abs() < SAME { 1.0 } else { factor }
    }
}

/// A tensor of an adapter as all containers agree on it: named as in PEFT, not turned, B with its scale.
pub struct View {
    pub factor: Factor,
    /// Rows and columns; those past the source's are zero.
    pub shape: [usize; 2],
}

/// All tensors of an adapter, so that two of them can be compared.
pub fn views(source: &Source, base: Base, adapter: &Adapter) -> Result<BTreeMap<String, View>> {
    let mut views = BTreeMap::new();
    for module in move_modules(source, base, adapter, Style::Peft)? {
        let mut view = |which, segments: Vec<Segment>, source_turned, scale: f64, shape| {
            let Some(entry) = segments.first().map(|s| s.entry) else { return };
            let factor = Factor { entry, source_turned, turned: false, segments, scale: scale as f32 };
            views.insert(Style::Peft.tensor_name(&module.name, module.form, which), View { factor, shape });
        };
        let [a, b] = module.source_turned;
        view(adapter::Factor::A, module.a.clone(), a, 1.0, [module.rank, module.inputs]);
        view(adapter::Factor::B, module.b.clone(), b, module.scale, [module.outputs, module.rank]);
        if let Some(index) = module.magnitude {
            let (rows, _) = rows_and_columns(source.tensors()[index].shape());
            view(adapter::Factor::Magnitude, vec![Segment::whole(index, rows)], false, 1.0, [rows, 1]);
        }
    }
    for index in &adapter.others {
        let entry = &source.tensors()[*index];
        let (rows, columns) = rows_and_columns(entry.shape());
        let segments = vec![Segment::whole(*index, rows)];
        let factor = Factor { entry: *index, source_turned: false, turned: false, segments, scale: 1.0 };
        views.insert(entry.name().into(), View { factor, shape: [rows, columns] });
    }
    Ok(views)
}

/// Refuses what the target has no words for.
fn check_sayable(source: &Source, adapter: &Adapter, to: Style) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let refuse = |problem: Problem| Err(Error::refused(source.path(), problem));
    if let Some(why) = adapter.settings.unsupported() {
        return refuse(Problem::new("unsupported-adapter", format!("the adapter cannot be converted: {why}")));
    }
    for index in &adapter.others {
        let name = source.tensors()[*index].name();
        if name.ends_with(".base_layer.weight") {
            warnings.push(format!("{name:?} is a copy of the base's own weights and is left out"));
            continue;
        }
        let problem = Problem::new("unknown-tensor", "is not a factor of LoRA, and the target holds nothing else");
        let help =
            "a whole copy of a layer (modules_to_save) or a trained norm belongs into the base: merge it there first";
        return refuse(problem.tensor(name).help(help));
    }
    let magnitude = |m: &&Module| m.magnitude.is_some();
    if let Some(module) = adapter.modules.iter().find(magnitude).filter(|_| to == Style::Gguf) {
        let message = format!(
            "module {:?} has a DoRA magnitude: it scales the base's rows too, which no low-rank change can express",
            module.name
        );
        let problem = Problem::new("dora", message);
        return refuse(problem.help("merge the adapter into its base with PEFT or mlx_lm and convert the result"));
    }
    if let Some(module) = adapter.modules.iter().find(|m| m.form == Form::Embedding && m.magnitude.is_some()) {
        let message =
            format!("module {:?} is an embedding with DoRA, which PEFT and MLX define differently", module.name);
        return refuse(Problem::new("dora", message));
    }
    if let (Settings::Peft(peft), Style::Mlx) = (&adapter.settings, to)
        && !peft.invocation.is_empty()
    {
        let message = "the adapter acts only after certain tokens (alora_invocation_tokens), which MLX cannot say";
        return refuse(Problem::new("unsupported-adapter", message));
    }
    let with = adapter.modules.iter().filter(magnitude).count();
    if with != 0 && with != adapter.modules.len() {
        return refuse(Problem::new("dora", "some modules have a DoRA magnitude and others have none"));
    }
    Ok(warnings)
}

/// Whether a description that was taken along still describes these modules: where it says a smaller rank, the rest must be
/// the padding it was given.
fn fits(source: &Source, chosen: &Chosen, moved: &[Moved]) -> Result<bool> {
    for module in moved {
        let rank = chosen.rank(module);
        let scale = chosen.settings().scale(&module.name, rank);
        if rank > module.rank || (scale == 0.0) != (module.scale == 0.0) {
            return Ok(false);
        }
        if rank < module.rank && !is_zero_from(source, module, rank)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the factor A of a module is zero from row `rank` on.
fn is_zero_from(source: &Source, module: &Moved, rank: usize) -> Result<bool> {
    let (rows, turned) = (module.rank - rank, module.source_turned[0]);
    let pool = Pool::new(64 << 20);
    let reader = Reader { source, pool: &pool, waits: false };
    let mut values = vec![0.0f32; module.inputs];
    for expert in module.experts_of_a() {
        let segment = Segment { first: 0, rows, source_first: expert.source_first + rank, ..expert };
        let factor =
            Factor { entry: segment.entry, source_turned: turned, turned: false, segments: vec![segment], scale: 1.0 };
        for row in 0..rows {
            factor.read(&reader, &[rows, module.inputs], row, &mut values)?;
            if values.iter().any(|v| *v != 0.0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The tensors of one module, each with what it is multiplied with.
fn factors(
    source: &Source,
    module: &Moved,
    from: Style,
    to: Style,
    chosen: &Chosen,
    factor: f64,
) -> Vec<(Output, f64)> {
    let (rank, [turned_a, turned_b]) = (chosen.rank(module), to.transposes(module.form));
    let shape = |rows: usize, columns: usize, turned: bool| {
        let mut shape = if turned { vec![columns, rows] } else { vec![rows, columns] };
        if module.form == Form::Experts {
            shape.insert(0, module.experts);
        }
        shape
    };
    // Padding or cutting the rank moves the rows of every expert but the first.
    let restack = |s: Segment| Segment { first: s.first / module.rank * rank, rows: rank.min(module.rank), ..s };
    let a = module.experts_of_a().map(restack).collect();
    let make = |which, shape: Vec<usize>, segments: Vec<Segment>, turned: [bool; 2], scale: f64, same_rank: bool| {
        let name = to.tensor_name(&module.name, module.form, which);
        let plain = !turned[0] && !turned[1] && scale == 1.0 && same_rank;
        let content = match segments.first() {
            Some(first) if !plain => Content::Factor(Factor {
                entry: first.entry,
                source_turned: turned[0],
                turned: turned[1],
                segments,
                scale: scale as f32,
            }),
            _ => Content::Rows(segments),
        };
        (
            Output { gguf_name: name.clone(), name, layer: windlass_catalog::layer_of(&module.name), shape, content },
            scale,
        )
    };
    let [from_a, from_b] = module.source_turned;
    debug_assert_eq!(from.transposes(module.source_form), module.source_turned);
    let same = rank == module.rank;
    let mut made = vec![
        make(adapter::Factor::A, shape(rank, module.inputs, turned_a), a, [from_a, turned_a], 1.0, same),
        make(
            adapter::Factor::B,
            shape(module.outputs, rank, turned_b),
            module.b.clone(),
            [from_b, turned_b],
            factor,
            same,
        ),
    ];
    if let Some(index) = module.magnitude {
        let (rows, _) = rows_and_columns(source.tensors()[index].shape());
        let segments = vec![Segment::whole(index, rows)];
        made.push(make(adapter::Factor::Magnitude, vec![rows], segments, [false, false], 1.0, true));
    }
    made
}

/// The type of a tensor in the target: what it was before, else what it is; wider where scaling rounds.
fn element(source: &Source, output: &Output, container: ContainerRef, scale: f64) -> Result<Element> {
    let from = super::encoding::source_element(source, output);
    let original = Originals::of(source).get(&output.name).filter(|d| d.is_float());
    let element = match (from.dtype(), original) {
        (Some(dtype), Some(original)) if dtype.is_float() => original.into(),
        (Some(dtype), None) if dtype.is_float() && scale == 1.0 => dtype.into(),
        _ => Element::Plain(DType::F32),
    };
    if container.can_hold(&element) {
        return Ok(element);
    }
    let message = format!("{} cannot hold {} (tensor {:?})", container.name(), element.name(), output.name);
    Err(Error::new(Code::Usage, message).tensor(&output.name).help("choose a type with --scheme, such as f32"))
}

/// The type that was asked for, for every factor.
pub fn chosen_elements(
    model: &Model,
    outputs: &[Output],
    container: ContainerRef,
    options: &super::Options,
) -> Result<Vec<Element>> {
    let name = options.scheme.as_deref().filter(|_| options.recipe.is_none()).unwrap_or("a recipe");
    let dtype = DType::from_name(&name.to_uppercase()).filter(|d| d.is_float() && container.can_hold(&(*d).into()));
    let Some(dtype) = dtype else {
        let message = format!("the factors of an adapter cannot be stored as {name}");
        return Err(Error::usage(message).help("choose f32, bf16 or f16 with --scheme"));
    };
    let choose = |output: &Output| {
        let from = super::encoding::source_element(&model.source, output);
        if from.dtype().is_none_or(|d| d.is_float()) { dtype.into() } else { from }
    };
    Ok(outputs.iter().map(choose).collect())
}

/// Says which modules had their scale multiplied into B, and what that rounds.
fn folding_warning(folded: &[(&str, f64)]) -> Option<String> {
    let (first, factor) = folded.first()?;
    let power = |f: f64| (f as f32).to_bits() & 0x007f_ffff == 0 && f64::from(f as f32) == f;
    let rounding = match folded.iter().all(|(_, factor)| power(*factor)) {
        true => "nothing is rounded",
        false => "values are rounded to f32, by 1.2e-7 of their size at most",
    };
    Some(format!(
        "the target says one scale for all modules, so the factor B of {} of them is multiplied with what differs \
         ({first}: {factor}); {rounding}",
        folded.len()
    ))
}

//! Which module of the target each module of an adapter changes, and in which order its rows come.

use std::collections::BTreeMap;

use windlass_catalog::{Convention, Order, Part, Place, Role};
use windlass_formats::adapter::{Adapter, Form, Module, Style};
use windlass_formats::{Problem, Source};

use super::super::names::Segment;
use super::convention;
use crate::model::Identity;
use crate::{Error, Result};

/// The change of one module in the target's words.
#[derive(Debug)]
pub struct Moved {
    pub name: String,
    pub form: Form,
    pub source_form: Form,
    /// Whether the source stores the factors transposed.
    pub source_turned: [bool; 2],
    /// Rows of the factors, as they come from the source.
    pub a: Vec<Segment>,
    pub b: Vec<Segment>,
    pub magnitude: Option<usize>,
    pub rank: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub experts: usize,
    pub scale: f64,
}

/// What the base of an adapter is, or why that is not known.
pub type Base<'a> = std::result::Result<&'a Identity, &'a String>;

/// A module of the base in both conventions, piece by piece.
struct Known {
    from: Place,
    to: Option<Place>,
    rows: usize,
    embedding: bool,
    tied: bool,
}

/// Finds the target of every module.
///
/// # Errors
/// If the base's architecture must be known and is not, if it has no such module or one of another shape, or if the target
/// stores several modules as one and the adapter has different changes for them.
pub fn move_modules(source: &Source, base: Base, adapter: &Adapter, to: Style) -> Result<Vec<Moved>> {
    let of_experts = |m: &Module| m.form == Form::Experts || m.name.contains(".experts.");
    let needs_base = to == Style::Gguf || adapter.style == Style::Gguf || adapter.modules.iter().any(of_experts);
    if !needs_base && base.is_err() {
        return Ok(adapter.modules.iter().map(|m| as_it_is(m, adapter.style)).collect());
    }
    let known = known(source, base, adapter.style, to)?;
    let mut moved: Vec<Moved> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for module in &adapter.modules {
        let Some(pieces) = known.get(&module.name) else { return Err(unknown(source, base, adapter.style, module)) };
        for piece in pieces {
            let target = check(source, module, piece, to)?;
            let name = module_name(&target.tensor).to_string();
            let at = *by_name.entry(name.clone()).or_insert_with(|| {
                moved.push(begin(module, piece, target, name, adapter.style));
                moved.len() - 1
            });
            join(source, &mut moved[at], module, piece, target)?;
        }
    }
    moved.iter_mut().try_for_each(|m| finish(source, m))?;
    Ok(moved)
}

/// PEFT and MLX call modules alike.
fn as_it_is(module: &Module, from: Style) -> Moved {
    Moved {
        name: module.name.clone(),
        form: module.form,
        source_form: module.form,
        source_turned: from.transposes(module.form),
        a: vec![Segment::whole(module.a, module.rank)],
        b: vec![Segment::whole(module.b, module.outputs)],
        magnitude: module.magnitude,
        rank: module.rank,
        inputs: module.inputs,
        outputs: module.outputs,
        experts: 1,
        scale: module.scale,
    }
}

fn known(source: &Source, base: Base, from: Style, to: Style) -> Result<BTreeMap<String, Vec<Known>>> {
    let identity = base.map_err(|why| {
        let message = format!("the base of the adapter must be known to name its modules: {why}");
        Error::refused(source.path(), Problem::new("no-architecture", message))
            .help("give the folder of the base model, of which config.json is enough: --config-from BASE")
    })?;
    let mut known: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    for piece in identity.architecture.pieces(&identity.hyper)? {
        if piece.part != Part::Weight || piece.shape.len() != 2 {
            continue;
        }
        let target = || piece.places(convention(to)).into_iter().next();
        for from in piece.places(convention(from)) {
            let embedding = piece.role == Role::TokenEmbedding;
            let tied = piece.tied_to.is_some() || (embedding && identity.hyper.tied());
            let piece = Known { to: target(), rows: piece.rows(), embedding, tied, from };
            known.entry(module_name(&piece.from.tensor).into()).or_default().push(piece);
        }
    }
    Ok(known)
}

fn module_name(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn unknown(source: &Source, base: Base, style: Style, module: &Module) -> Error {
    let architecture = base.map_or("the base", |i| i.architecture.name());
    let message = format!("changes module {:?}, which {architecture} does not have", module.name);
    let problem = Problem::new("unknown-tensor", message).tensor(source.tensors()[module.a].name());
    let error = Error::refused(source.path(), problem);
    if convention(style) == Convention::Gguf { error } else { error.help("check --config-from: it must be the base") }
}

/// Holds the module's shape against the base's; gives the place in the target.
fn check<'a>(source: &Source, module: &Module, piece: &'a Known, to: Style) -> Result<&'a Place> {
    let refuse = |code, message: String| {
        let problem = Problem::new(code, message).tensor(source.tensors()[module.a].name());
        Error::refused(source.path(), problem)
    };
    let Some(target) = &piece.to else {
        let message = format!("the target stores nothing for module {:?}", module.name);
        return Err(refuse("unknown-tensor", message));
    };
    if to == Style::Gguf && piece.tied {
        let message =
            "changes the embedding or the output alone, which the base shares: GGUF stores them as one".to_string();
        return Err(refuse("tied-output", message));
    }
    let (outputs, inputs) =
        if piece.embedding { (module.inputs, module.outputs) } else { (module.outputs, module.inputs) };
    let mut found = vec![outputs, inputs];
    if module.form == Form::Experts {
        found.insert(0, module.experts);
    }
    if found != piece.from.shape {
        let message = format!(
            "module {:?} has shape {:?} in the base, but the factors give {found:?}",
            module.name, piece.from.shape
        );
        return Err(refuse("wrong-shape", message).help("the adapter belongs to another base"));
    }
    Ok(target)
}

impl Moved {
    /// The rows of A that belong to each expert, where those of several follow each other in one segment.
    pub(super) fn experts_of_a(&self) -> impl Iterator<Item = Segment> {
        self.a.iter().flat_map(|s| {
            (0..s.rows / self.rank).map(|i| {
                let (first, source_first) = (s.first + i * self.rank, s.source_first + i * self.rank);
                Segment { first, source_first, rows: self.rank, ..s.clone() }
            })
        })
    }
}

fn begin(module: &Module, piece: &Known, target: &Place, name: String, from: Style) -> Moved {
    let form = match (piece.embedding, target.shape.len()) {
        (true, _) => Form::Embedding,
        (_, 3) => Form::Experts,
        _ => Form::Linear,
    };
    let columns = target.shape.len() - 1;
    let (outputs, inputs) = match form {
        Form::Embedding => (module.outputs, module.inputs),
        _ => (target.shape[columns - 1], target.shape[columns]),
    };
    Moved {
        name,
        form,
        source_form: module.form,
        source_turned: from.transposes(module.form),
        a: Vec::new(),
        b: Vec::new(),
        magnitude: module.magnitude,
        rank: module.rank,
        inputs,
        outputs,
        experts: if form == Form::Experts { target.shape[0] } else { 1 },
        scale: module.scale,
    }
}

/// Adds the rows of one piece.
fn join(source: &Source, moved: &mut Moved, module: &Module, piece: &Known, target: &Place) -> Result<()> {
    if (moved.rank, moved.scale, moved.source_form) != (module.rank, module.scale, module.form) {
        let message = format!(
            "the target stores {:?} as one with other modules, and they have other ranks or scales: {} and {} here",
            module.name, module.rank, module.scale
        );
        let problem = Problem::new("mixed-modules", message).tensor(source.tensors()[module.a].name());
        return Err(Error::refused(source.path(), problem));
    }
    if moved.form == Form::Embedding {
        moved.a = vec![Segment::whole(module.a, module.rank)];
        moved.b = vec![Segment::whole(module.b, module.outputs)];
        return Ok(());
    }
    let expert = |place: &Place, rows: usize| if place.shape.len() == 3 { place.row / rows } else { 0 };
    let rows_of = |place: &Place| place.shape[place.shape.len() - 2];
    let (to, from) = (expert(target, rows_of(target)), expert(&piece.from, rows_of(&piece.from)));
    let plain = Segment::whole(module.a, module.rank);
    let a = Segment { first: to * module.rank, source_first: from * module.rank, ..plain };
    match moved.a.iter().find(|s| s.first == a.first) {
        None => moved.a.push(a),
        Some(same) if (same.entry, same.source_first) == (a.entry, a.source_first) => {}
        Some(_) => {
            let message =
                format!("the target stores {:?} as one with other modules that have an A of their own", module.name);
            let problem = Problem::new("mixed-modules", message).tensor(source.tensors()[module.a].name());
            return Err(Error::refused(source.path(), problem));
        }
    }
    let (source_order, order) = (piece.from.order, target.order);
    let b = Segment {
        entry: module.b,
        first: target.row,
        rows: piece.rows,
        source_first: piece.from.row,
        source_order,
        order,
        shift: 0.0,
    };
    moved.b.push(b);
    Ok(())
}

/// Puts rows in order, joins those that follow each other, and checks that none is missing.
fn finish(source: &Source, moved: &mut Moved) -> Result<()> {
    for (segments, rows) in [(&mut moved.a, moved.rank * moved.experts), (&mut moved.b, moved.outputs * moved.experts)]
    {
        segments.sort_by_key(|s| s.first);
        segments.dedup_by(|next, before| {
            let plain = |s: &Segment| s.order == Order::Plain && s.source_order == Order::Plain;
            let follows = next.entry == before.entry
                && next.first == before.first + before.rows
                && next.source_first == before.source_first + before.rows
                && plain(next)
                && plain(before);
            if follows {
                before.rows += next.rows;
            }
            follows
        });
        let covered = segments.iter().try_fold(0, |next, s| (s.first == next).then_some(next + s.rows));
        if covered != Some(rows) {
            let message = "the target stores several modules as one here, and the adapter changes only some of them";
            let problem = Problem::new("missing-tensor", message).tensor(&moved.name);
            return Err(Error::refused(source.path(), problem));
        }
    }
    if moved.magnitude.is_some() && moved.b.len() != 1 {
        let problem = Problem::new("dora", "a DoRA magnitude of a module that the target stores in another way");
        return Err(Error::refused(source.path(), problem.tensor(&moved.name)));
    }
    Ok(())
}

//! Which rows of which source tensors make up each tensor of the output.

use std::collections::{BTreeMap, HashSet};

use windlass_catalog::{Convention, Order, Piece, Place};
use windlass_formats::{Entry, Problem, Source};
use windlass_tensor::DType;

use super::adapter::Factor;
use crate::rows::rows_and_columns;
use crate::turned::{Spot, Turn};
use crate::{Error, Result, model::Identity};

/// One tensor of the output, named in the target's convention.
#[derive(Debug)]
pub struct Output {
    pub name: String,
    /// Its name in GGUF, by which recipes and importance matrices know it.
    pub gguf_name: String,
    pub layer: Option<usize>,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    pub content: Content,
}

/// Where an output's values come from.
#[derive(Debug)]
pub enum Content {
    /// Rows of source tensors, in order and without gaps.
    Rows(Vec<Segment>),
    /// Matrices that are stored with rows and columns exchanged on one side.
    Turned(Vec<Turn>),
    /// Computed from hyper-parameters.
    Values(Vec<f32>),
    /// Bytes of this type that travelled in a key.
    Bytes(DType, Vec<u8>),
    /// A factor of an adapter that is stored in another way here.
    Factor(Factor),
}

impl Content {
    /// Indices of the source tensors that it is made of.
    pub fn entries(&self) -> Vec<usize> {
        match self {
            Content::Rows(segments) => segments.iter().map(|s| s.entry).collect(),
            Content::Turned(turns) => turns.iter().map(|t| t.entry).collect(),
            Content::Factor(factor) => vec![factor.entry],
            Content::Values(_) | Content::Bytes(..) => Vec::new(),
        }
    }
}

/// A run of output rows that come from one source tensor.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Index of the source tensor.
    pub entry: usize,
    /// First row of the output that this covers, and how many.
    pub first: usize,
    pub rows: usize,
    /// First row in the source.
    pub source_first: usize,
    /// Orders of the rows in the source and in the output.
    pub source_order: Order,
    pub order: Order,
    /// Added to every value on the way.
    pub shift: f32,
}

impl Segment {
    /// The source row that output row `row` takes its values from.
    pub fn source_row(&self, row: usize) -> usize {
        self.source_first + self.source_order.stored_row(self.order.plain_row(row - self.first))
    }

    /// Whether rows change their order on the way.
    pub fn reorders(&self) -> bool {
        self.order != self.source_order
    }

    pub fn whole(entry: usize, rows: usize) -> Segment {
        let (source_order, order) = (Order::Plain, Order::Plain);
        Segment { entry, first: 0, rows, source_first: 0, source_order, order, shift: 0.0 }
    }
}

/// Every tensor under its own name: no architecture is needed where source and target share a convention.
pub fn keep_names(source: &Source) -> Vec<Output> {
    let output = |(index, entry): (usize, &Entry)| {
        let (rows, _) = rows_and_columns(entry.shape());
        let content = Content::Rows(vec![Segment::whole(index, rows)]);
        Output {
            name: entry.name().into(),
            gguf_name: entry.name().into(),
            layer: windlass_catalog::layer_of(entry.name()),
            shape: entry.shape().to_vec(),
            content,
        }
    };
    source.tensors().iter().enumerate().map(output).collect()
}

/// Tells outputs that kept their names what GGUF calls them, so that recipes and importance matrices know them.
pub fn name_in_gguf(outputs: &mut [Output], identity: &Identity, convention: Convention) -> Result<()> {
    let mut known = BTreeMap::new();
    for piece in identity.architecture.pieces(&identity.hyper)? {
        if let Some(gguf) = piece.places(Convention::Gguf).into_iter().next() {
            let places = piece.places(convention);
            known.extend(places.into_iter().map(|p| (p.tensor, (gguf.tensor.clone(), piece.layer))));
        }
    }
    for output in outputs {
        if let Some((name, layer)) = known.remove(&output.name) {
            (output.gguf_name, output.layer) = (name, layer);
        }
    }
    Ok(())
}

/// Whether the source has tensors that its own convention stores in another way when they are not packed: published checkpoints of
/// gpt-oss have packed experts row by row, plain ones column by column.
pub fn packs_otherwise(source: &Source, identity: &Identity, convention: Convention) -> Result<bool> {
    if !source.tensors().iter().any(|entry| entry.shape().len() > 2 && entry.element().dtype().is_none()) {
        return Ok(false);
    }
    let turned = |p: &&Place| matches!(p.order, Order::Columns { .. });
    let otherwise = |piece: Piece| {
        let places = piece.places(convention);
        let others = places.iter().skip(1).filter(|p| places.first().filter(turned).is_some() && !turned(p));
        others.into_iter().any(|place| source.tensor(&place.tensor).is_some())
    };
    Ok(identity.architecture.pieces(&identity.hyper)?.into_iter().any(otherwise))
}

/// Maps a model from one convention to another through its architecture's inventory.
pub fn map_names(source: &Source, identity: &Identity, from: Convention, to: Convention) -> Result<Vec<Output>> {
    let pieces = identity.architecture.pieces(&identity.hyper)?;
    let index: BTreeMap<&str, usize> = source.tensors().iter().enumerate().map(|(i, e)| (e.name(), i)).collect();
    let mut used = HashSet::new();
    let mut outputs: Vec<Output> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for piece in &pieces {
        let Some((place, entry)) = find(source, piece, from, &index)? else { continue };
        used.insert(entry);
        if piece.tied_to.is_some() && to == Convention::Gguf {
            continue;
        }
        let Some(target) = piece.places(to).into_iter().next() else { continue };
        let at = *by_name.entry(target.tensor.clone()).or_insert_with(|| {
            outputs.push(empty_output(piece, &target));
            outputs.len() - 1
        });
        add(&mut outputs[at].content, piece, &place, &target, entry);
    }
    for (name, values) in identity.architecture.generated(&identity.hyper, to) {
        let (gguf_name, shape) = (name.clone(), vec![values.len()]);
        outputs.push(Output { name, gguf_name, layer: None, shape, content: Content::Values(values) });
    }
    refuse_left_over(source, identity, from, to, &used, &mut outputs)?;
    outputs.iter_mut().try_for_each(|output| finish(source, output))?;
    Ok(outputs)
}

fn find(
    source: &Source,
    piece: &Piece,
    from: Convention,
    index: &BTreeMap<&str, usize>,
) -> Result<Option<(Place, usize)>> {
    let entry = |name: &str| index.get(name).copied();
    let shape = |name: &str| entry(name).map(|i| source.tensors()[i].shape());
    if let Some(place) = piece.find(from, shape) {
        return Ok(entry(&place.tensor).map(|i| (place, i)));
    }
    let places = piece.places(from);
    if let Some((place, found)) = places.iter().find_map(|p| Some((p, shape(&p.tensor)?))) {
        let message = format!("expected shape {:?} from the model's configuration, found {found:?}", place.shape);
        return Err(Error::refused(source.path(), Problem::new("wrong-shape", message).tensor(&place.tensor))
            .help("the config.json belongs to another model, or the file is damaged"));
    }
    match places.first().filter(|_| piece.required) {
        None => Ok(None),
        Some(first) => {
            let problem = Problem::new("missing-tensor", "the architecture needs this tensor, and the model lacks it");
            Err(Error::refused(source.path(), problem.tensor(&first.tensor))
                .help("the model is incomplete (download it again), or its config.json belongs to another model"))
        }
    }
}

fn empty_output(piece: &Piece, target: &Place) -> Output {
    let gguf = piece.places(Convention::Gguf).into_iter().next().map_or(target.tensor.clone(), |p| p.tensor);
    Output {
        name: target.tensor.clone(),
        gguf_name: gguf,
        layer: piece.layer,
        shape: target.shape.clone(),
        content: Content::Rows(Vec::new()),
    }
}

/// Adds what `piece` is of an output.
fn add(content: &mut Content, piece: &Piece, place: &Place, target: &Place, entry: usize) {
    let turned = [place, target].iter().any(|p| matches!(p.order, Order::Columns { .. }));
    match content {
        Content::Rows(segments) if turned && segments.is_empty() => {
            *content = Content::Turned(vec![turn(piece, place, target, entry)]);
        }
        Content::Rows(segments) => segments.push(segment(piece, place, target, entry)),
        Content::Turned(turns) => turns.push(turn(piece, place, target, entry)),
        Content::Values(_) | Content::Bytes(..) | Content::Factor(_) => {}
    }
}

fn turn(piece: &Piece, place: &Place, target: &Place, entry: usize) -> Turn {
    let spot = |place: &Place| Spot { row: place.row, order: place.order };
    let (rows, columns) = rows_and_columns(&piece.shape);
    Turn { entry, rows, columns, from: spot(place), to: spot(target) }
}

fn segment(piece: &Piece, place: &Place, target: &Place, entry: usize) -> Segment {
    Segment {
        entry,
        first: target.row,
        rows: piece.rows(),
        source_first: place.row,
        source_order: place.order,
        order: target.order,
        shift: target.shift - place.shift,
    }
}

/// A tensor that nothing asked for: kept where both sides use the names of Hugging Face, ignored where it is known to
/// carry nothing, refused otherwise, because a converted model must not silently lose weights.
fn refuse_left_over(
    source: &Source,
    identity: &Identity,
    from: Convention,
    to: Convention,
    used: &HashSet<usize>,
    outputs: &mut Vec<Output>,
) -> Result<()> {
    for (index, entry) in source.tensors().iter().enumerate().filter(|(i, _)| !used.contains(i)) {
        if from != Convention::Gguf && to != Convention::Gguf {
            let content = Content::Rows(vec![Segment::whole(index, rows_and_columns(entry.shape()).0)]);
            let (name, shape) = (entry.name().to_string(), entry.shape().to_vec());
            outputs.push(Output { gguf_name: name.clone(), name, layer: None, shape, content });
        } else if !identity.architecture.ignorable(from, entry.name()) {
            let message =
                format!("is not a tensor of {}, so it has no name in the target", identity.architecture.name());
            return Err(Error::refused(source.path(), Problem::new("unknown-tensor", message).tensor(entry.name())));
        }
    }
    Ok(())
}

/// Puts segments in order and checks that they cover the output.
fn finish(source: &Source, output: &mut Output) -> Result<()> {
    let (rows, columns) = rows_and_columns(&output.shape);
    let complete = match &mut output.content {
        Content::Rows(segments) => {
            segments.sort_by_key(|s| s.first);
            segments.iter().try_fold(0, |next, s| (s.first == next).then_some(next + s.rows)) == Some(rows)
        }
        Content::Turned(turns) => turns.iter().map(|t| t.rows * t.columns).sum::<usize>() == rows * columns,
        Content::Values(_) | Content::Bytes(..) | Content::Factor(_) => true,
    };
    if !complete {
        let message = "only some of the tensors that make up this one are in the model";
        return Err(Error::refused(source.path(), Problem::new("missing-tensor", message).tensor(&output.name)));
    }
    Ok(())
}

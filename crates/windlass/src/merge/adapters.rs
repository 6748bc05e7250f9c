//! Adapters merged into a base: each tensor of the base is decoded, changed row by row, and encoded again.

use windlass_edit::Product;
use windlass_formats::adapter::{Adapter, Form, Module, PEFT_ROOT, Settings, Style};
use windlass_formats::{Problem, Source};
use windlass_runtime::memory::Pool;

use super::places::{Spot, spots};
use crate::convert::adapter::{Factor, convention};
use crate::convert::{Edit, Plain, Segment, Step};
use crate::rows::{Reader, rows_and_columns};
use crate::{Code, Error, Model, Result};

/// Values of a factor that are read at a time, at least.
const CHUNK: u64 = 64 << 10;

/// Adapters, and what they do to each output.
pub struct Adapters {
    models: Vec<(Model, f64)>,
    /// For each output, in the order in which they are made.
    changes: Vec<Vec<Change>>,
}

/// A change of rows of an output.
struct Change {
    adapter: usize,
    first: usize,
    rows: usize,
    kind: Kind,
}

enum Kind {
    LowRank {
        left: Factor,
        right: Factor,
        rank: usize,
        scale: f32,
        magnitude: Option<Factor>,
    },
    /// Rows that the adapter has a whole copy of, with what is added to each value.
    Whole(Factor, f32),
}

impl Adapters {
    /// Finds what each adapter changes.
    ///
    /// # Errors
    /// If an adapter is for another base, or does what cannot be merged: tensor, expected and found are named.
    pub fn find(models: Vec<(Model, f64)>, base: &Plain) -> Result<Adapters> {
        let mut changes: Vec<Vec<Change>> = base.outputs.iter().map(|_| Vec::new()).collect();
        for (index, (model, scale)) in models.iter().enumerate() {
            let source = &model.source;
            let Some(adapter) = &model.adapter else {
                let message = format!("{} is not an adapter", source.path().display());
                return Err(Error::new(Code::Refused, message)
                    .at(source.path())
                    .help("an adapter is a folder with adapter_config.json (PEFT, MLX) or a GGUF of type adapter"));
            };
            if let Some(why) = adapter.settings.unsupported() {
                let problem = Problem::new("unsupported-adapter", format!("the adapter cannot be merged: {why}"));
                return Err(Error::refused(source.path(), problem));
            }
            if !scale.is_finite() || !(*scale as f32).is_finite() {
                return Err(Error::usage(format!("the scale of an adapter is a number, found {scale}")));
            }
            let finder = Finder { index, source, adapter, scale: *scale, base, changes: &mut changes };
            finder.find()?;
        }
        Ok(Adapters { models, changes })
    }
}

/// Finds the changes of one adapter.
struct Finder<'a> {
    index: usize,
    source: &'a Source,
    adapter: &'a Adapter,
    scale: f64,
    base: &'a Plain<'a>,
    changes: &'a mut Vec<Vec<Change>>,
}

impl Finder<'_> {
    fn find(mut self) -> Result<()> {
        let spots = spots(self.base, convention(self.adapter.style))?;
        let adapter = self.adapter;
        for module in &adapter.modules {
            let found = spots.get(&format!("{}.weight", module.name));
            // Stacks of experts have no ending in Hugging Face's convention.
            let found = found.or_else(|| spots.get(&module.name)).filter(|spots| spots.iter().any(|s| s.weight));
            let Some(found) = found else { return Err(self.unknown(&module.name, module.a)) };
            for spot in found.iter().filter(|spot| spot.weight) {
                self.module(module, spot)?;
            }
        }
        for other in &adapter.others {
            self.whole(*other, &spots)?;
        }
        Ok(())
    }

    fn module(&mut self, module: &Module, spot: &Spot) -> Result<()> {
        let (outputs, inputs) =
            if spot.embedding { (module.inputs, module.outputs) } else { (module.outputs, module.inputs) };
        let mut found = vec![outputs, inputs];
        if module.form == Form::Experts {
            found.insert(0, module.experts);
        }
        if found != spot.from.shape || spot.embedding != (module.form == Form::Embedding) {
            let message = format!(
                "changes module {:?}: expected factors for {:?}, which is its shape in the base, found them for {found:?}",
                module.name, spot.from.shape
            );
            return Err(self.refuse("wrong-shape", message, module.a).help("the adapter belongs to another base"));
        }
        let output = self.output(&module.name, spot, module.a)?;
        if module.magnitude.is_some() && spot.embedding {
            let message =
                format!("module {:?} is an embedding with DoRA, which PEFT and MLX define differently", module.name);
            return Err(self.refuse("dora", message, module.a));
        }
        let kind = self.low_rank(module, spot);
        self.changes[output].push(Change { adapter: self.index, first: spot.to.row, rows: spot.rows, kind });
        Ok(())
    }

    fn low_rank(&self, module: &Module, spot: &Spot) -> Kind {
        let [turned_a, turned_b] = self.adapter.style.transposes(module.form);
        let factor = |entry, source_turned, turned, segments: Vec<Segment>| Factor {
            entry,
            source_turned,
            turned,
            segments,
            scale: 1.0,
        };
        let (left, right) = if spot.embedding {
            // A token's row is a row of A turned, times B turned.
            (
                factor(module.a, turned_a, true, vec![Segment::whole(module.a, module.rank)]),
                factor(module.b, turned_b, true, vec![Segment::whole(module.b, module.outputs)]),
            )
        } else {
            // A stack of experts has their factors one below the other.
            let expert = if module.form == Form::Experts { spot.from.row / module.outputs } else { 0 };
            let a = Segment { source_first: expert * module.rank, ..Segment::whole(module.a, module.rank) };
            (
                factor(module.b, turned_b, false, vec![Segment { shift: 0.0, ..spot.segment(module.b) }]),
                factor(module.a, turned_a, false, vec![a]),
            )
        };
        let magnitude =
            module.magnitude.map(|m| factor(m, false, false, vec![Segment { shift: 0.0, ..spot.segment(m) }]));
        Kind::LowRank { left, right, rank: module.rank, scale: (module.scale * self.scale) as f32, magnitude }
    }

    /// A tensor that the adapter has as a whole: a module that was trained entirely, or a bias.
    fn whole(&mut self, index: usize, spots: &std::collections::BTreeMap<String, Vec<Spot>>) -> Result<()> {
        let entry = &self.source.tensors()[index];
        if self.adapter.style == Style::Gguf {
            let message = "is neither a factor of LoRA nor anything else that llama.cpp reads of an adapter";
            return Err(self.refuse("unknown-tensor", message.into(), index));
        }
        let name = entry.name().strip_prefix(PEFT_ROOT).unwrap_or(entry.name());
        // PEFT keeps a copy of a base's embedding beside its factors; a bias under that name was trained.
        let copy = name.ends_with(".base_layer.weight");
        let name = name.replace(".modules_to_save", "").replace(".original_module", "").replace(".base_layer", "");
        let Some(found) = spots.get(&name) else { return Err(self.unknown(&name, index)) };
        for spot in found {
            if entry.shape() != spot.from.shape {
                let message = format!(
                    "is a whole copy of {name:?}: expected shape {:?} as in the base, found {:?}",
                    spot.from.shape,
                    entry.shape()
                );
                let error = self.refuse("wrong-shape", message, index);
                return Err(error.help(
                    "the adapter belongs to another base, or tokens were added: resize the base's vocabulary first",
                ));
            }
            if self.scale != 1.0 && !copy {
                let message =
                    format!("is a whole copy of {name:?}, which a scale of {} cannot be given to", self.scale);
                return Err(self.refuse("whole-copy", message, index).help("merge this adapter with a scale of 1"));
            }
            let output = self.output(&name, spot, index)?;
            if copy {
                continue;
            }
            let segment = spot.segment(index);
            let shift = segment.shift;
            let factor =
                Factor { entry: index, source_turned: false, turned: false, segments: vec![segment], scale: 1.0 };
            let kind = Kind::Whole(factor, shift);
            self.changes[output].push(Change { adapter: self.index, first: spot.to.row, rows: spot.rows, kind });
        }
        Ok(())
    }

    fn output(&self, name: &str, spot: &Spot, tensor: usize) -> Result<usize> {
        if spot.tied {
            let message = format!("changes {name:?}, and the base has one tensor for its embedding and its output");
            let help = "merging would change both; train with a base whose output is its own";
            return Err(self.refuse("tied-output", message, tensor).help(help));
        }
        if spot.is_turned() {
            let message = format!("changes {name:?}, which is stored with rows and columns exchanged here");
            return Err(self.refuse("turned", message, tensor).help("merge into a GGUF of the base"));
        }
        spot.output.ok_or_else(|| self.unknown(name, tensor))
    }

    fn unknown(&self, name: &str, tensor: usize) -> Error {
        let architecture = match &self.base.model.identity {
            Ok(identity) => format!("a base of architecture {}", identity.architecture.name()),
            Err(why) => format!("the base (its architecture is not known: {why})"),
        };
        let message = format!("changes {name:?}, which {architecture} does not have");
        self.refuse("unknown-tensor", message, tensor).help("the adapter belongs to another base")
    }

    fn refuse(&self, code: &'static str, message: String, tensor: usize) -> Error {
        let name = self.source.tensors()[tensor].name();
        Error::refused(self.source.path(), Problem::new(code, message).tensor(name))
    }
}

impl Adapters {
    fn of(&self, step: &Step) -> impl Iterator<Item = (&Change, usize, usize)> {
        let end = step.first + step.rows;
        let all = self.changes.get(step.piece).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(move |change| {
            let first = step.first.max(change.first);
            let rows = end.min(change.first + change.rows).checked_sub(first).filter(|rows| *rows > 0)?;
            Some((change, first, rows))
        })
    }

    fn source(&self, change: &Change) -> &Source {
        &self.models[change.adapter].0.source
    }
}

impl Edit for Adapters {
    fn touches(&self, step: &Step) -> bool {
        self.of(step).next().is_some()
    }

    fn memory(&self, step: &Step) -> u64 {
        let need = |(change, _, _): (&Change, usize, usize)| {
            let rows = step.rows as u64;
            let line = |factor: &Factor| {
                let source = self.source(change);
                let columns = rows_and_columns(source.tensors()[factor.entry].shape()).1 as u64;
                12 * CHUNK.max(columns)
            };
            let values = match &change.kind {
                Kind::LowRank { left, right, rank, .. } => {
                    let width = match right.turned {
                        true => right.segments.iter().map(|s| s.rows).max().unwrap_or(0),
                        false => rows_and_columns(self.source(change).tensors()[right.entry].shape())
                            .1
                            .max(right.source_turned as usize * self.longest(change, right)),
                    };
                    4 * (rows * (*rank as u64 + 1) + (*rank * width) as u64) + line(left).max(line(right))
                }
                Kind::Whole(factor, _) => {
                    let columns = rows_and_columns(self.source(change).tensors()[factor.entry].shape()).1;
                    4 * rows * columns as u64 + line(factor)
                }
            };
            // The pool's blocks are up to a quarter larger.
            2 * values
        };
        let whole = Step { first: 0, rows: usize::MAX >> 1, ..*step };
        self.of(&whole).map(need).max().unwrap_or(0)
    }

    fn apply(&self, step: &Step, values: &mut [f32], pool: &Pool) -> Result<f64> {
        let columns = values.len() / step.rows.max(1);
        let mut sum = 0.0;
        for (change, first, rows) in self.of(step) {
            let values = &mut values[(first - step.first) * columns..][..rows * columns];
            let reader = Reader { source: self.source(change), pool, waits: true };
            sum += change.apply(&reader, first, columns, values)?;
        }
        Ok(sum)
    }

    fn sources(&self) -> Vec<&Source> {
        self.models.iter().map(|(model, _)| &model.source).collect()
    }

    fn fingerprint(&self) -> String {
        let scale = |settings: &Settings| match settings {
            Settings::Gguf { alpha } => *alpha,
            Settings::Peft(peft) => peft.alpha,
            Settings::Mlx(mlx) => mlx.scale,
        };
        let one = |(model, factor): &(Model, f64)| {
            let own = model.adapter.as_ref().map(|adapter| {
                (scale(&adapter.settings), adapter.modules.iter().map(|m| m.scale).collect::<Vec<f64>>())
            });
            format!("adapter {} {factor} {own:?}", model.source.path().display())
        };
        self.models.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl Adapters {
    fn longest(&self, change: &Change, factor: &Factor) -> usize {
        rows_and_columns(self.source(change).tensors()[factor.entry].shape()).0
    }
}

impl Change {
    /// Changes rows `first..` of the output.
    fn apply(&self, reader: &Reader, first: usize, columns: usize, values: &mut [f32]) -> Result<f64> {
        let rows = values.len() / columns.max(1);
        match &self.kind {
            Kind::LowRank { left, right, rank, scale, magnitude } => {
                let mut l = reader.pool.take("rows of a factor", rows * rank * 4)?;
                let mut r = reader.pool.take("a factor", rank * columns * 4)?;
                left.read(reader, &[rows, *rank], first, l.as_f32_mut())?;
                right.read(reader, &[*rank, columns], 0, r.as_f32_mut())?;
                let product = Product { left: l.as_f32_mut(), right: r.as_f32_mut(), rank: *rank, scale: *scale };
                let Some(magnitude) = magnitude else { return Ok(product.add_to(values, columns)) };
                let mut lengths = reader.pool.take("lengths of rows", rows * 4)?;
                magnitude.read(reader, &[rows], first, lengths.as_f32_mut())?;
                Ok(product.add_and_stretch(values, columns, lengths.as_f32_mut()))
            }
            Kind::Whole(factor, shift) => {
                let mut new = reader.pool.take("a block of the adapter", values.len() * 4)?;
                let new = new.as_f32_mut();
                let shape = [rows, columns];
                factor.read(reader, if columns == 1 { &shape[..1] } else { &shape }, first, new)?;
                let mut sum = 0.0;
                for (value, new) in values.iter_mut().zip(new) {
                    let new = *new + shift;
                    sum += f64::from(new - *value).powi(2);
                    *value = new;
                }
                Ok(sum)
            }
        }
    }
}

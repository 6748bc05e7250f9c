//! Changes to values between decoding and encoding: adapters and other models that are merged into a source.

use windlass_formats::{ContainerRef, Source};
use windlass_quant::Packing;
use windlass_runtime::memory::Pool;
use windlass_runtime::pipeline;
use windlass_tensor::Element;

use super::blocks::{Blocks, Outcome, Piece};
use super::names::Output;
use super::steps::{Step, rows_at_once};
use crate::rows::{packing, rows_and_columns};
use crate::{Error, Model, Result};

/// Something that changes the values of outputs, block of rows by block of rows.
pub(crate) trait Edit: Send + Sync {
    /// Whether any row of this step changes.
    fn touches(&self, step: &Step) -> bool;

    /// Bytes that [`Edit::apply`] takes for a step of so many rows.
    fn memory(&self, step: &Step) -> u64;

    /// Looks at whole tensors before the first step, where that is needed.
    fn prepare(&self, _blocks: &Blocks, _options: &pipeline::Options) -> Result<()> {
        Ok(())
    }

    /// Changes the decoded values of a step. Gives the sum of the squares of the changes.
    fn apply(&self, step: &Step, values: &mut [f32], pool: &Pool) -> Result<f64>;

    /// What is read beside the model itself.
    fn sources(&self) -> Vec<&Source>;

    /// Tells this change from another of the same sources.
    fn fingerprint(&self) -> String;

    /// What the user should know.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What an edit is made for: a conversion whose outputs are known.
pub(crate) struct Plain<'a> {
    pub model: &'a Model,
    pub container: ContainerRef,
    pub outputs: &'a [Output],
}

/// What happened to an output that was changed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Edited {
    pub name: String,
    /// What it is stored as.
    pub scheme: String,
    /// Root mean square of the change over that of the new values.
    pub relative_change: f64,
    /// Root mean square of what storing lost over that of the new values: of merged and stored against merged and exact.
    pub relative_error: f64,
}

/// Sums over everything that was changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct EditedSum {
    squares: [f64; 3],
}

impl EditedSum {
    /// As [`Edited::relative_error`], of all of it.
    pub fn relative_error(&self) -> f64 {
        ratio(self.squares[0], self.squares[1])
    }

    /// As [`Edited::relative_change`], of all of it.
    pub fn relative_change(&self) -> f64 {
        ratio(self.squares[2], self.squares[1])
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { (part / whole).sqrt() }
}

/// Whether any row of an output changes.
pub(super) fn touches(edit: &dyn Edit, piece: usize, output: &Output) -> bool {
    edit.touches(&Step { piece, first: 0, rows: rows_and_columns(&output.shape).0 })
}

/// Tells the pieces what changes, and refuses what could not be stored again.
pub(super) fn mark(edit: &dyn Edit, source: &Source, pieces: &mut [Piece], scheme_given: bool) -> Result<()> {
    for (piece, at) in pieces.iter_mut().zip(0..) {
        if !touches(edit, at, &piece.output) {
            continue;
        }
        if let Some(packing) = packing(&piece.element) {
            check_encodable(&packing, &piece.output, scheme_given)?;
        }
        (piece.measure, piece.exact) = (true, false);
        piece.edit_bytes = edit.memory(&Step { piece: at, first: 0, rows: rows_at_once(source, piece) });
    }
    Ok(())
}

fn check_encodable(packing: &Packing, output: &Output, scheme_given: bool) -> Result<()> {
    let name = packing.scheme.name();
    if packing.scheme.can_encode() {
        return Ok(());
    }
    let message = format!("{name} is read and not written, so the changed tensor cannot stay in it");
    let help = if scheme_given { "choose another scheme" } else { "choose what to store the result as: --scheme S" };
    Err(Error::usage(message).tensor(&output.name).help(help))
}

/// What happened to all outputs that were changed.
pub(super) fn report(edit: &dyn Edit, pieces: &[Piece], outcomes: &[Outcome]) -> (Vec<Edited>, EditedSum) {
    let mut sum = EditedSum::default();
    let mut all = Vec::new();
    for (at, (piece, outcome)) in pieces.iter().zip(outcomes).enumerate() {
        if !touches(edit, at, &piece.output) {
            continue;
        }
        let [_, norm, change] = outcome.squares;
        sum.squares.iter_mut().zip(outcome.squares).for_each(|(sum, own)| *sum += own);
        all.push(Edited {
            name: piece.output.name.clone(),
            scheme: name(&piece.element),
            relative_change: ratio(change, norm),
            relative_error: outcome.relative_error.unwrap_or(0.0),
        });
    }
    (all, sum)
}

fn name(element: &Element) -> String {
    element.name().to_lowercase()
}

//! Values that an output cannot hold are refused, with the place where they are stored.

use windlass_formats::Problem;
use windlass_quant::measure;
use windlass_tensor::{DType, Element};

use super::blocks::{Blocks, Piece};
use super::names::Content;
use super::steps::Step;
use crate::rows::{self, rows_and_columns};
use crate::{Error, Result};

impl Blocks<'_> {
    /// Refuses values that the output's element cannot hold: not finite in a packing, too large for a small float.
    pub(super) fn check_range(&self, piece: &Piece, step: &Step, values: &[f32]) -> Result<()> {
        let Some(largest) = largest_value(&piece.element) else { return Ok(()) };
        if measure::largest_magnitude(values) <= largest {
            return Ok(());
        }
        let at = values.iter().position(|v| v.is_nan() || v.abs() > largest).unwrap_or(0);
        let help = if values[at].is_finite() {
            "choose a type with a larger range, such as bf16"
        } else {
            "the weights are damaged: see what else is with `windlass verify --deep`, then download them again"
        };
        self.refuse_value(piece, step, ("not-finite", "cannot hold"), values, at, help)
    }

    /// Refuses a value that is not the same after it became the type that its tensor had before it came into the source.
    pub(super) fn check_unchanged(&self, piece: &Piece, step: &Step, values: &[f32], decoded: &[f32]) -> Result<()> {
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
        let Some(at) = values.iter().zip(decoded).position(differs) else { return Ok(()) };
        let name = piece.element.name().to_lowercase();
        let help = format!(
            "the tensor was changed since it was {name}: keep all with --scheme f32, or round it with --scheme {name}"
        );
        self.refuse_value(piece, step, ("rounded", "was the tensor's type before, and cannot hold"), values, at, &help)
    }

    /// The error for value `at` of a step: `element WHAT the value X in row R, column C`.
    fn refuse_value(
        &self,
        piece: &Piece,
        step: &Step,
        (code, what): (&'static str, &str),
        values: &[f32],
        at: usize,
        help: &str,
    ) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let row = step.first + at / columns.max(1);
        let Content::Rows(segments) = &piece.output.content else {
            let message = format!("{} cannot hold the value {}", piece.element.name(), values[at]);
            let problem = Problem::new("not-finite", message).tensor(&piece.output.name);
            return Err(
                Error::refused(self.source.path(), problem).help("choose a type with a larger range, such as f32")
            );
        };
        let Some(segment) = segments.iter().find(|s| s.first + s.rows > row) else { return Ok(()) };
        let (row, entry) = (segment.source_row(row), &self.source.tensors()[segment.entry]);
        let band = row / entry.row_granularity(columns) * entry.row_granularity(columns);
        let offset = rows::ranges(entry.element(), columns, band, 1).first().map_or(0, |range| range.0);
        let name = piece.element.name();
        let message = format!("{name} {what} the value {} in row {row}, column {}", values[at], at % columns.max(1));
        let extent = entry.planes()[0];
        let problem = Problem::new(code, message).tensor(entry.name()).offset(extent.offset + offset);
        Err(Error::refused(self.source.parts()[extent.part].path(), problem).help(help))
    }
}

/// The largest magnitude that an element can hold where that is less than what a float may be.
fn largest_value(element: &Element) -> Option<f32> {
    match element {
        Element::Plain(DType::F16) => Some(65504.0),
        Element::Plain(DType::F8E4M3) => Some(448.0),
        Element::Plain(DType::F8E5M2) => Some(57344.0),
        Element::Plain(_) => None,
        Element::Packed(_) => Some(f32::MAX),
    }
}

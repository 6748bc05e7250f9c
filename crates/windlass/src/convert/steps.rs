//! How outputs are cut into steps: blocks of rows that are made on their own.

use windlass_formats::Source;

use super::blocks::Piece;
use super::names::{Content, Segment};
use crate::rows::{packing, rows_and_columns};

/// Values in one block: 1 MiB as `f32`, so that a block in all its forms stays in a core's second-level cache.
const BLOCK_VALUES: usize = 256 << 10;
/// The same where a block reads much more than it writes.
const TURNED_VALUES: usize = 1 << 20;

/// Rows of one piece.
#[derive(Clone, Copy)]
pub struct Step {
    pub piece: usize,
    pub first: usize,
    pub rows: usize,
}

/// Blocks do not cross the border between two experts, because each has importance weights of its own.
pub fn rows_per_expert(shape: &[usize]) -> usize {
    let rows = rows_and_columns(shape).0;
    if shape.len() > 2 { (rows / shape[0].max(1)).max(1) } else { rows.max(1) }
}

/// The parts of a step that come from one segment each.
pub fn parts<'a>(segments: &'a [Segment], step: &Step) -> Vec<(&'a Segment, Step)> {
    let end = step.first + step.rows;
    let overlaps = segments.iter().filter(|s| s.first < end && s.first + s.rows > step.first);
    let part = |segment: &'a Segment| {
        let first = step.first.max(segment.first);
        let rows = end.min(segment.first + segment.rows) - first;
        (segment, Step { piece: step.piece, first, rows })
    };
    overlaps.map(part).collect()
}

/// Rows of the output that are coded or stored together.
pub fn granularity(piece: &Piece) -> usize {
    let (rows, columns) = rows_and_columns(&piece.output.shape);
    let Some(packing) = packing(&piece.element) else { return 1 };
    let own = packing.scheme.row_granularity(columns);
    let arranged = piece.arrangement.as_ref().map_or(1, |a| a.granularity(&packing, columns));
    common_multiple(own, arranged).min(rows.max(1))
}

/// Rows of one block: about [`BLOCK_VALUES`] values, and whole bands of the output and of its sources.
pub fn rows_at_once(source: &Source, piece: &Piece) -> usize {
    let (rows, columns) = rows_and_columns(&piece.output.shape);
    let mut granule = granularity(piece);
    if let Content::Rows(segments) = &piece.output.content {
        for segment in segments {
            let entry = &source.tensors()[segment.entry];
            granule = common_multiple(granule, entry.row_granularity(columns)).min(rows.max(1));
        }
    }
    let values = if matches!(piece.output.content, Content::Turned(_)) { TURNED_VALUES } else { BLOCK_VALUES };
    (values / columns.max(1)).max(1).next_multiple_of(granule).clamp(1, rows.max(1))
}

fn common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a.max(1) / x * b.max(1)
}

/// All steps of a conversion.
pub fn cut(source: &Source, pieces: &[Piece]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (piece, p) in pieces.iter().enumerate() {
        let (rows, columns) = rows_and_columns(&p.output.shape);
        let per_expert = if granularity(p) > 1 { rows.max(1) } else { rows_per_expert(&p.output.shape) };
        let at_once = rows_at_once(source, p).min(per_expert);
        for expert in (0..if columns > 0 { rows } else { 0 }).step_by(per_expert) {
            let end = (expert + per_expert).min(rows);
            let firsts = (expert..end).step_by(at_once);
            steps.extend(firsts.map(|first| Step { piece, first, rows: at_once.min(end - first) }));
        }
    }
    steps
}

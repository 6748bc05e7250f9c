//! The pass before the blocks: encoders that must see a whole tensor before its first row.

use std::sync::Mutex;

use windlass_quant::{Packing, Tally};
use windlass_runtime::pipeline;

use super::blocks::Blocks;
use crate::rows::{self, packing, rows_and_columns};
use crate::{Error, Result};

impl Blocks<'_> {
    /// Looks once over all values of the tensors whose encoders must know them as a whole.
    pub fn tally(&self, options: &pipeline::Options) -> Result<()> {
        let pieces = self.pieces.iter().map(|piece| packing(&piece.element).filter(|p| p.scheme.tallies()));
        let pieces: Vec<Option<Packing>> = pieces.collect();
        let steps: Vec<usize> = (0..self.steps.len()).filter(|i| pieces[self.steps[*i].piece].is_some()).collect();
        let tallies = steps.iter().map(|_| Mutex::new(Tally::default())).collect();
        let work = Tallying { blocks: self, steps, tallies };
        pipeline::run(&work, &pipeline::Options { progress: &|_, _| (), ..*options })?;
        let mut sums = vec![Tally::default(); pieces.len()];
        for (step, tally) in work.steps.iter().zip(&work.tallies) {
            let sum = &mut sums[self.steps[*step].piece];
            *sum = sum.merge(*tally.lock().unwrap_or_else(|e| e.into_inner()));
        }
        for (i, packing) in pieces.iter().enumerate().filter_map(|(i, p)| Some((i, (*p)?))) {
            let (_, columns) = rows_and_columns(&self.pieces[i].output.shape);
            let sizes = rows::ranges(&self.pieces[i].element, columns, 0, 1).into_iter();
            let whole = sizes.zip(packing.scheme.planes());
            let mut planes: Vec<Vec<u8>> =
                whole.map(|((_, bytes), plane)| vec![0; if plane.whole { bytes as usize } else { 0 }]).collect();
            let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|plane| plane.as_mut_slice()).collect();
            packing.scheme.begin(&sums[i], &mut slices);
            let _ = self.begun[i].set(planes);
        }
        Ok(())
    }
}

/// The pass before the blocks, for encoders that must see a whole tensor first.
struct Tallying<'a, 'b> {
    blocks: &'a Blocks<'b>,
    steps: Vec<usize>,
    tallies: Vec<Mutex<Tally>>,
}

impl pipeline::Work for Tallying<'_, '_> {
    type Error = Error;

    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn bytes(&self, index: usize) -> u64 {
        self.blocks.bytes(self.steps[index])
    }

    fn prefetch(&self, index: usize) {
        self.blocks.prefetch(self.steps[index]);
    }

    fn step(&self, index: usize) -> Result<()> {
        let blocks = self.blocks;
        let step = &blocks.steps[self.steps[index]];
        let piece = &blocks.pieces[step.piece];
        let Some(packing) = packing(&piece.element) else { return Ok(()) };
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut values = blocks.pool.take("a block of floats", step.rows * columns * 4)?;
        let values = values.as_f32_mut();
        blocks.values(step, values)?;
        let tally = packing.scheme.tally(values, columns, blocks.source_float(piece, step));
        *self.tallies[index].lock().unwrap_or_else(|e| e.into_inner()) = tally;
        Ok(())
    }
}

//! The order of examples, and batches of them.

use serde::{Deserialize, Serialize};
use windlass_models::Batch;
use windlass_runtime::random::Philox;
use windlass_tensor::Tensor;

use super::{Example, IGNORED};
use crate::Error;

/// Where in the data training is. The same seed gives the same order, from any place on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    seed: u64,
    shuffle: bool,
    units: usize,
    /// Units that were taken.
    taken: u64,
    /// The order of an epoch.
    order: Option<(u64, Vec<usize>)>,
}

impl Cursor {
    /// At the beginning of so many units: examples, or packs of them.
    pub fn new(units: usize, shuffle: bool, seed: u64) -> Self {
        Self { seed, shuffle, units, taken: 0, order: None }
    }

    /// Goes on after so many units.
    pub fn skip_to(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// Units that were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// All there is to know to go on from here.
    pub fn place(&self) -> Place {
        let position = self.taken % self.units.max(1) as u64;
        Place { seed: self.seed, shuffle: self.shuffle, units: self.units, epoch: self.epoch(), position }
    }

    /// At a place that was kept.
    pub fn at(place: &Place) -> Self {
        let Place { seed, shuffle, units, epoch, position } = *place;
        let taken = epoch.saturating_mul(units as u64).saturating_add(position);
        Self { seed, shuffle, units, taken, order: None }
    }

    /// How often the data were gone through.
    pub fn epoch(&self) -> u64 {
        self.taken / self.units.max(1) as u64
    }

    /// The number of the next unit.
    pub fn take(&mut self) -> usize {
        let (epoch, at) = (self.epoch(), (self.taken % self.units.max(1) as u64) as usize);
        self.taken += 1;
        if !self.shuffle {
            return at;
        }
        match &self.order {
            Some((known, order)) if *known == epoch => order[at],
            _ => {
                let order = Philox::new(self.seed).sequence(epoch).permutation(self.units);
                let example = order[at];
                self.order = Some((epoch, order));
                example
            }
        }
    }
}

/// A place in the data, as checkpoints keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub seed: u64,
    pub shuffle: bool,
    /// Units of the data.
    pub units: usize,
    /// How often the data were gone through.
    pub epoch: u64,
    /// Units of this epoch that were taken.
    pub position: u64,
}

/// Examples one after the other, each a sequence of its own.
pub fn batch(examples: &[&Example]) -> Result<Batch, Error> {
    let count = examples.iter().map(|example| example.tokens.len()).sum();
    let (mut tokens, mut positions) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut targets, mut bounds) = (Vec::with_capacity(count), vec![0i64]);
    for example in examples {
        tokens.extend(example.tokens.iter().map(|token| i64::from(*token)));
        positions.extend(0..example.tokens.len() as i64);
        targets.extend(example.labels.iter().skip(1).copied().chain([IGNORED]));
        bounds.push(tokens.len() as i64);
    }
    let row = |values: &[i64]| Tensor::from_slice(values, [values.len()]);
    Ok(Batch { tokens: row(&tokens)?, positions: row(&positions)?, bounds: row(&bounds)?, targets: row(&targets)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use windlass_tensor::TypedTensor;

    use super::*;

    #[test]
    fn targets_are_what_comes_next() {
        let one = Example { tokens: vec![5, 6, 7], labels: vec![-100, 6, 7] };
        let two = Example { tokens: vec![8, 9], labels: vec![8, 9] };
        let batch = batch(&[&one, &two]).unwrap();
        let values = |t: Tensor| TypedTensor::<i64>::new(t).unwrap().to_vec().unwrap();
        assert_eq!(values(batch.targets), [6, 7, -100, 9, -100]);
        assert_eq!(values(batch.positions), [0, 1, 2, 0, 1]);
        assert_eq!(values(batch.bounds), [0, 3, 5]);
    }

    #[test]
    fn an_order_goes_on_where_it_stopped() {
        let mut whole = Cursor::new(5, true, 7);
        let all: Vec<usize> = (0..20).map(|_| whole.take()).collect();
        let mut sorted = all[5..10].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);
        assert_ne!(all[..5], all[5..10]);
        let mut later = Cursor::new(5, true, 7);
        later.skip_to(8);
        assert_eq!(later.place(), Place { seed: 7, shuffle: true, units: 5, epoch: 1, position: 3 });
        let mut again = Cursor::at(&later.place());
        assert_eq!((8..20).map(|_| later.take()).collect::<Vec<_>>(), all[8..]);
        assert_eq!((8..20).map(|_| again.take()).collect::<Vec<_>>(), all[8..]);
    }
}

//! Importance of columns.

use std::collections::BTreeMap;

use crate::Error;

/// Mean squared activation of each column of a matrix, by the tensor's GGUF name; experts one after the other.
#[derive(Clone, Debug, Default)]
pub struct ImportanceMatrix {
    weights: BTreeMap<String, Vec<f32>>,
}

impl ImportanceMatrix {
    /// Without any tensor.
    pub fn new() -> ImportanceMatrix {
        ImportanceMatrix::default()
    }

    /// Adds a tensor's weights. They must be finite.
    pub fn insert(&mut self, name: &str, weights: Vec<f32>) -> Result<(), Error> {
        if let Some(at) = weights.iter().position(|w| !w.is_finite()) {
            let message = format!("importance of {name:?} is {} at column {at}: it must be finite", weights[at]);
            return Err(Error::Recipe(message));
        }
        self.weights.insert(name.into(), weights);
        Ok(())
    }

    /// Adds a tensor's sums of squared activations, which lie expert by expert, and the number of tokens each expert saw.
    /// An expert that saw none counts every column the same.
    pub fn insert_sums(&mut self, name: &str, sums: &[f32], counts: &[f32]) -> Result<(), Error> {
        if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
            let message = format!("importance of {name:?} has {} sums for {} counts", sums.len(), counts.len());
            return Err(Error::Recipe(message));
        }
        let columns = (sums.len() / counts.len()).max(1);
        let mean = |(sum, count): (&f32, &f32)| if *count > 0.0 { sum / count } else { 1.0 };
        let each = counts.iter().flat_map(|count| std::iter::repeat_n(count, columns));
        self.insert(name, sums.iter().zip(each).map(mean).collect())
    }

    /// The weights of a tensor of `experts` matrices (1 if it is no stack) with `columns` columns, `experts * columns`
    /// of them; nothing if it is absent or of another size.
    pub fn get(&self, name: &str, columns: usize, experts: usize) -> Option<&[f32]> {
        let weights = self.weights.get(name)?;
        (Some(weights.len()) == columns.checked_mul(experts)).then_some(weights)
    }

    /// Number of weights of a tensor, if it is there.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.weights.get(name).map(Vec::len)
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

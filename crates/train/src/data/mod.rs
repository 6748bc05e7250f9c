//! Data: rows of a file become examples, examples become batches.

mod batches;
mod rows;

pub use batches::{Cursor, batch};
pub use rows::{Reading, read};

/// What nobody learns.
pub const IGNORED: i64 = -100;

/// One sequence of tokens, and which of them are to be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub tokens: Vec<u32>,
    /// For each token itself, or -100 where it is given and not learned.
    pub labels: Vec<i64>,
}

impl Example {
    /// Tokens that are learned: all that have a label, but for the first, which nothing comes before.
    pub fn targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|label| **label != IGNORED).count()
    }
}

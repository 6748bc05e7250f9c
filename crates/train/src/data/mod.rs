//! Data: rows of a file become examples, examples become batches.

mod batches;
mod bounds;
mod containers;
mod cut;
mod packing;
mod read;
mod shapes;
mod store;
mod value;

pub use batches::{Cursor, Place as CursorPlace, batch};
pub use containers::{Bad, CONTAINERS, Container, Input, Place, Stream};
pub use cut::Truncation;
pub use packing::Data;
pub use read::{Reading, Summary, TrainOn, read, read_from};
pub use shapes::{ChatTemplate, Draft, SHAPES, Shape};
pub use store::{Collector, Examples};
pub use value::{Object, Value};

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

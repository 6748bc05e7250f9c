//! Memory: pools with budgets that refuse, arenas, segments that processes share, and cold data on disk.
//!
//! - [`Pool`] lends aligned buffers by size class, within a budget, and knows who has how much.
//! - [`Arena`] is one block from which buffers are cut without looking for room.
//! - [`Segments`] finds memory that processes share, by name.
//! - [`SpillFile`] takes cold bytes to disk; they come back when they are touched.
//!
//! Buffers of all of them are `windlass_tensor::Buffer`s: a `Storage` can stand on each.

mod arena;
mod host;
mod ledger;
mod pool;
#[cfg(unix)]
mod segments;
mod spill;

pub use arena::{Arena, ArenaBuffer};
pub use host::{ALIGNMENT, Host, HostBlock};
pub use ledger::{OwnerStatistics, Statistics, TraceEntry};
pub use pool::{Buffer, Lent, Pool, Source};
#[cfg(unix)]
pub use segments::{Segment, Segments};
pub use spill::{SpillFile, SpillOptions, SpillStatistics, SpilledBuffer};

//! From logits to text: sampling, stopping, streaming.

mod chat;
mod error;
mod generation;
mod sample;
mod stream;

pub use chat::{Answer, Chat, Template};
pub use error::Error;
pub use generation::{BATCH, FinishReason, Generation, Outcome, Settings};
pub use sample::{Sampler, Sampling};
pub use stream::TextStream;

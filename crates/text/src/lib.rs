//! Tokenizers and chat templates, from tokenizer.json and from GGUF.
//!
//! A tokenizer is described by a tokenizer.json. Reading a GGUF means writing the tokenizer.json that its keys stand for, so there is
//! one way from a description to a running tokenizer, and the same checks stand before it.

mod error;
mod gguf;
mod hf;
mod json;
mod split;
mod template;
mod tokenizer;
mod train;
mod validate;

pub use error::Error;
pub use gguf::to_gguf;
pub use hf::{HfFiles, to_hf};
pub use template::{Message, marks_generation, render_chat, render_marked_chat};
pub use tokenizer::Tokenizer;
pub use train::train_byte_level;

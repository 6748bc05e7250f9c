//! Shapes of rows: which columns a row has, and what of it is learned. Each is one file here and one line in `SHAPES`.

mod alpaca;
mod chat;
mod completion;
mod text;
mod tokens;

use std::ops::Range;

use super::value::Object;
use super::{Example, Reading};

pub use chat::ChatTemplate;

/// A shape of rows.
pub trait Shape: Sync {
    /// What `--format` calls it.
    fn name(&self) -> &'static str;

    /// The columns that it needs, for errors.
    fn needs(&self) -> &'static str;

    /// All columns that it looks at.
    fn columns(&self) -> &'static [&'static str];

    /// Whether a row with these columns is one.
    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool;

    /// What a row comes to.
    fn drafts(&self, row: &Object, how: &Reading) -> Result<Vec<Draft>, String>;
}

/// The shapes, in the order they are asked.
pub const SHAPES: [&dyn Shape; 5] =
    [&tokens::Tokens, &chat::Chat, &alpaca::Alpaca, &completion::Completion, &text::Text];

/// An example before it is cut, and before text is tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Draft {
    /// Tokens as the row has them.
    Tokens(Example),
    /// Pieces, tokenized one by one, and whether they are learned. What the model wants at the beginning of a text goes before
    /// the first, the token that ends a text behind the last.
    Pieces(Vec<(String, bool)>),
    /// A text that has all its special tokens, and the bytes of it that are learned.
    Marked(String, Vec<Range<usize>>),
}

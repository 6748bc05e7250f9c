//! Tokens to text, piece by piece.

use windlass_text::Tokenizer;

use crate::Error;

/// Turns tokens into text as they come. A character that several tokens make up appears when it is whole, and words
/// keep the spaces that the tokenizer puts between them.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens before this one are not decoded again.
    from: usize,
    /// Tokens before this one have been given out.
    given: usize,
}

/// What decoders put in place of bytes that are not UTF-8 (yet).
const INCOMPLETE: char = '\u{fffd}';

/// Tokens of an incomplete character after which it is given out as it is.
const PATIENCE: usize = 8;

impl<'a> TextStream<'a> {
    /// An empty one.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), from: 0, given: 0 }
    }

    /// The text that `token` completes; empty while a character is not whole.
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        // A model may have more rows than its tokenizer has entries; those mean nothing.
        if self.tokenizer.piece(token).is_none() {
            return Ok(String::new());
        }
        self.tokens.push(token);
        let before = self.tokenizer.decode(&self.tokens[self.from..self.given], true)?;
        let now = self.tokenizer.decode(&self.tokens[self.from..], true)?;
        if now.ends_with(INCOMPLETE) && self.tokens.len() - self.given < PATIENCE {
            return Ok(String::new());
        }
        Ok(self.give(&before, &now))
    }

    /// What is left when no more tokens come.
    pub fn finish(mut self) -> Result<String, Error> {
        let before = self.tokenizer.decode(&self.tokens[self.from..self.given], true)?;
        let now = self.tokenizer.decode(&self.tokens[self.from..], true)?;
        Ok(self.give(&before, &now))
    }

    fn give(&mut self, before: &str, now: &str) -> String {
        self.from = self.given;
        self.given = self.tokens.len();
        now.strip_prefix(before).unwrap_or_default().to_string()
    }
}

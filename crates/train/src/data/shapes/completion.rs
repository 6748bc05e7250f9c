//! A prompt, and the completion that is learned.

use super::{Draft, Shape};
use crate::data::Reading;
use crate::data::value::Object;

/// The shape.
pub struct Completion;

impl Shape for Completion {
    fn name(&self) -> &'static str {
        "completion"
    }

    fn needs(&self) -> &'static str {
        "prompt, completion"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["prompt", "completion"]
    }

    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("prompt") && has("completion")
    }

    fn drafts(&self, row: &Object, _: &Reading) -> Result<Vec<Draft>, String> {
        let pieces = vec![(row.text("prompt")?.to_owned(), false), (row.text("completion")?.to_owned(), true)];
        Ok(vec![Draft::Pieces(pieces)])
    }
}

//! Text, all of which is learned.

use super::{Draft, Shape};
use crate::data::Reading;
use crate::data::value::Object;

/// The shape.
pub struct Text;

impl Shape for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn needs(&self) -> &'static str {
        "text"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["text"]
    }

    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("text")
    }

    fn drafts(&self, row: &Object, _: &Reading) -> Result<Vec<Draft>, String> {
        Ok(vec![Draft::Pieces(vec![(row.text("text")?.to_owned(), true)])])
    }
}

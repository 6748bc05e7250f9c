//! An instruction, perhaps an input, and the output that is learned, in the words that Alpaca published.
//!
//! <https://github.com/tatsu-lab/stanford_alpaca#data-release>

use super::{Draft, Shape};
use crate::data::Reading;
use crate::data::value::Object;

/// The shape.
pub struct Alpaca;

impl Shape for Alpaca {
    fn name(&self) -> &'static str {
        "alpaca"
    }

    fn needs(&self) -> &'static str {
        "instruction, output (input)"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["instruction", "input", "output"]
    }

    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("instruction") && has("output")
    }

    fn drafts(&self, row: &Object, _: &Reading) -> Result<Vec<Draft>, String> {
        let instruction = row.text("instruction")?;
        let input = if row.has("input") { row.text("input")? } else { "" };
        Ok(vec![Draft::Pieces(vec![(prompt(instruction, input), false), (row.text("output")?.to_owned(), true)])])
    }
}

fn prompt(instruction: &str, input: &str) -> String {
    let task = "Below is an instruction that describes a task";
    let write = "Write a response that appropriately completes the request.";
    if input.is_empty() {
        format!("{task}. {write}\n\n### Instruction:\n{instruction}\n\n### Response:")
    } else {
        let paired = "paired with an input that provides further context";
        format!("{task}, {paired}. {write}\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:")
    }
}

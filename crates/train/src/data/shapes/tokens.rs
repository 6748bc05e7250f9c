//! Tokens: `input_ids`, and `labels` where -100 is not learned.

use super::{Draft, Shape};
use crate::data::value::{Object, Value};
use crate::data::{Example, IGNORED, Reading};

/// The shape.
pub struct Tokens;

impl Shape for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn needs(&self) -> &'static str {
        "input_ids (labels)"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["input_ids", "labels"]
    }

    fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("input_ids")
    }

    fn drafts(&self, row: &Object, how: &Reading) -> Result<Vec<Draft>, String> {
        let ids = integers(row, "input_ids")?.unwrap_or_default();
        let labels = match integers(row, "labels")? {
            Some(labels) if labels.len() != ids.len() => {
                return Err(format!("has {} tokens and {} labels", ids.len(), labels.len()));
            }
            Some(labels) => labels,
            None => ids.clone(),
        };
        let known = |id: i64| u32::try_from(id).ok().filter(|id| (*id as usize) < how.vocabulary);
        let unknown = |id: i64| format!("token {id} is not one of the {} of the vocabulary", how.vocabulary);
        let tokens = ids.iter().map(|id| known(*id).ok_or_else(|| unknown(*id))).collect::<Result<Vec<u32>, _>>()?;
        if let Some(label) = labels.iter().find(|label| **label != IGNORED && known(**label).is_none()) {
            return Err(format!("label: {}", unknown(*label)));
        }
        Ok(vec![Draft::Tokens(Example { tokens, labels })])
    }
}

/// A list of whole numbers; in tables of text they stand with spaces or commas between them.
fn integers(row: &Object, name: &str) -> Result<Option<Vec<i64>>, String> {
    match row.get(name) {
        None => Ok(None),
        Some(Value::Ints(ints)) => Ok(Some(ints.clone())),
        Some(Value::List(items)) if items.is_empty() => Ok(Some(Vec::new())),
        Some(Value::Text(text)) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let words = inner.split([',', ' ']).filter(|word| !word.is_empty());
            let number =
                |word: &str| word.parse::<i64>().map_err(|_| format!("{name:?} has {word:?}, expected numbers"));
            words.map(number).collect::<Result<_, _>>().map(Some)
        }
        Some(Value::List(items)) => {
            let odd = items.iter().find(|item| !matches!(item, Value::Int(_)));
            let odd = odd.map_or("nothing", |item| {
                if let Value::Float(_) = item { "a fraction or a huge number" } else { item.kind() }
            });
            Err(format!("{name:?} holds {odd}, expected whole numbers"))
        }
        Some(other) => Err(format!("{name:?} is {}, expected a list of numbers", other.kind())),
    }
}

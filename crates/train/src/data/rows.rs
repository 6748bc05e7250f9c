//! Rows of JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use windlass_text::Tokenizer;

use super::{Example, IGNORED};
use crate::Error;

/// Longest line that is read.
const LINE: usize = 64 << 20;

/// How rows are read.
pub struct Reading<'a> {
    /// Needed for rows of text.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Tokens that an example may have; later ones are cut off.
    pub context: usize,
    /// Number of tokens that the model knows.
    pub vocabulary: usize,
    /// Appended to text that ends.
    pub end: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Tokens { input_ids: Vec<u32>, labels: Option<Vec<i64>> },
    Completion { prompt: String, completion: String },
    Text { text: String },
}

/// Reads a file of JSON lines, one example in each.
pub fn read(path: &Path, how: &Reading) -> Result<Vec<Example>, Error> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut examples = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let count = std::io::Read::take(&mut reader, LINE as u64 + 1).read_until(b'\n', &mut bytes).map_err(io)?;
        let wrong = |message: String| Error::Row { file: path.display().to_string(), line, message };
        if count == 0 {
            break;
        }
        if bytes.len() > LINE {
            return Err(wrong(format!("is longer than {LINE} bytes")));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        examples.push(example(&bytes, how).map_err(wrong)?);
    }
    if examples.iter().all(|example| example.targets() == 0) {
        return Err(Error::Data(format!("{} has no tokens to learn", path.display())));
    }
    Ok(examples)
}

fn example(line: &[u8], how: &Reading) -> Result<Example, String> {
    let row: Row = serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            "expected {\"text\"}, {\"prompt\", \"completion\"} or {\"input_ids\", \"labels\"}".to_string()
        }
        _ => format!("is not JSON: {error}"),
    })?;
    let encode = |text: &str, special: bool| {
        let tokenizer = how.tokenizer.ok_or("text needs a tokenizer, and the model has none")?;
        tokenizer.encode(text, special).map_err(|error| error.to_string())
    };
    let mut example = match row {
        Row::Tokens { input_ids, labels } => {
            let labels = labels.unwrap_or_else(|| input_ids.iter().map(|id| i64::from(*id)).collect());
            if labels.len() != input_ids.len() {
                return Err(format!("has {} tokens and {} labels", input_ids.len(), labels.len()));
            }
            Example { tokens: input_ids, labels }
        }
        Row::Text { text } => {
            let mut tokens = encode(&text, true)?;
            tokens.extend(how.end);
            Example { labels: tokens.iter().map(|id| i64::from(*id)).collect(), tokens }
        }
        Row::Completion { prompt, completion } => {
            let mut tokens = encode(&prompt, true)?;
            let given = tokens.len();
            tokens.extend(encode(&completion, false)?);
            tokens.extend(how.end);
            let learned = tokens.iter().skip(given).map(|id| i64::from(*id));
            Example { labels: std::iter::repeat_n(IGNORED, given).chain(learned).collect(), tokens }
        }
    };
    example.tokens.truncate(how.context);
    example.labels.truncate(how.context);
    let known = |id: i64| id == IGNORED || usize::try_from(id).is_ok_and(|id| id < how.vocabulary);
    let all = example.tokens.iter().map(|id| i64::from(*id)).filter(|id| *id != IGNORED);
    if let Some(id) = all.chain(example.labels.iter().copied()).find(|id| !known(*id)) {
        return Err(format!("token {id} is not one of the {} of the vocabulary", how.vocabulary));
    }
    if example.tokens.is_empty() { Err("has no tokens".into()) } else { Ok(example) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOW: Reading = Reading { tokenizer: None, context: 4, vocabulary: 10, end: None };

    #[test]
    fn tokens_are_cut_and_checked() {
        let found = example(br#"{"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, 4, 5]}"#, &HOW).unwrap();
        assert_eq!(found, Example { tokens: vec![1, 2, 3, 4], labels: vec![-100, 2, 3, 4] });
        assert_eq!(found.targets(), 3);
        for (line, message) in [
            (r#"{"input_ids": [11]}"#, "token 11 is not one of the 10"),
            (r#"{"input_ids": [1], "labels": []}"#, "1 tokens and 0 labels"),
            (r#"{"input_ids": []}"#, "no tokens"),
            (r#"{"text": "a"}"#, "needs a tokenizer"),
            (r#"{"words": 3}"#, "expected"),
            ("{", "not JSON"),
        ] {
            let error = example(line.as_bytes(), &HOW).unwrap_err();
            assert!(error.contains(message), "{line}: {error}");
        }
    }
}

//! What happens to examples that are longer than the context.

use super::Example;

/// What happens to an example that is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// Its end is cut off.
    #[default]
    End,
    /// Its beginning is cut off.
    Start,
    /// It is left out.
    Drop,
    /// It becomes several examples. Each begins with the last token of the one before, so that every target is learned once.
    Split,
    /// It is a bad row.
    Error,
}

impl Truncation {
    /// All, with what `--truncation` calls them.
    pub const NAMES: [(&'static str, Truncation); 5] = [
        ("end", Truncation::End),
        ("start", Truncation::Start),
        ("drop", Truncation::Drop),
        ("split", Truncation::Split),
        ("error", Truncation::Error),
    ];

    /// What is left of an example: itself where it fits.
    pub fn apply(self, mut example: Example, context: usize) -> Result<Vec<Example>, String> {
        let length = example.tokens.len();
        if length <= context {
            return Ok(vec![example]);
        }
        match self {
            Truncation::End => {
                example.tokens.truncate(context);
                example.labels.truncate(context);
                Ok(vec![example])
            }
            Truncation::Start => {
                example.tokens.drain(..length - context);
                example.labels.drain(..length - context);
                Ok(vec![example])
            }
            Truncation::Drop => Ok(Vec::new()),
            Truncation::Split => {
                let piece = |start: usize| {
                    let end = (start + context).min(length);
                    Example { tokens: example.tokens[start..end].to_vec(), labels: example.labels[start..end].to_vec() }
                };
                Ok((0..length - 1).step_by(context.saturating_sub(1).max(1)).map(piece).collect())
            }
            Truncation::Error => Err(format!("has {length} tokens, the context {context}")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn example(tokens: &[u32]) -> Example {
        Example { tokens: tokens.to_vec(), labels: tokens.iter().map(|t| i64::from(*t)).collect() }
    }

    #[test]
    fn long_examples_are_cut_as_asked() {
        let long = || example(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let cut = |how: Truncation, context| {
            how.apply(long(), context).unwrap().into_iter().map(|e| e.tokens).collect::<Vec<_>>()
        };
        assert_eq!(cut(Truncation::End, 3), [vec![0, 1, 2]]);
        assert_eq!(cut(Truncation::Start, 3), [vec![5, 6, 7]]);
        assert!(cut(Truncation::Drop, 3).is_empty());
        assert_eq!(cut(Truncation::Split, 3), [vec![0, 1, 2], vec![2, 3, 4], vec![4, 5, 6], vec![6, 7]]);
        assert!(Truncation::Error.apply(long(), 3).unwrap_err().contains("8 tokens, the context 3"));
        for (_, how) in Truncation::NAMES {
            assert_eq!(how.apply(long(), 8).unwrap(), [long()]);
        }
        for context in 2..9 {
            let pieces = Truncation::Split.apply(long(), context).unwrap();
            assert_eq!(pieces.iter().map(Example::targets).sum::<usize>(), long().targets());
            assert!(pieces.iter().all(|piece| piece.tokens.len() <= context && piece.targets() > 0));
        }
    }
}

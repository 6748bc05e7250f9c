//! Merges from scores: how a sentencepiece vocabulary becomes BPE.

use std::collections::HashMap;

use super::SPACE;
use super::vocabulary::Type;
use crate::Error;
use crate::error::bound;

/// Bytes that may be hashed while all cuts of all pieces are looked up; real vocabularies need less than a hundredth.
const WORK: u64 = 4 << 30;

/// Every way to put a piece together from two others, best piece first.
///
/// Sentencepiece joins the neighbours whose union scores highest. Ranked BPE does the same if all cuts of a piece are merges and the
/// merges are sorted by the score of the union.
pub(crate) fn from_scores<'a>(
    tokens: &'a [String],
    types: &[Type],
    scores: &[f32],
) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let part = |i: usize| matches!(types[i], Type::Normal | Type::UserDefined | Type::Unused);
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().filter(|(i, _)| part(*i)).map(|(i, t)| (t.as_str(), i)).collect();
    let mut merges = Vec::new();
    let mut work: u64 = 0;
    for (i, token) in tokens.iter().enumerate().filter(|(i, t)| part(*i) && !t.is_empty()) {
        let mut cuts = Vec::new();
        for (at, _) in token.char_indices().skip(1) {
            work += token.len() as u64;
            let (left, right) = token.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                cuts.push((*l, *r, left, right));
            }
        }
        bound(|| "tokenizer.ggml.tokens: bytes to search for merges".to_owned(), work as usize, WORK)?;
        cuts.sort_unstable();
        merges.extend(cuts.into_iter().map(|(_, _, left, right)| (scores[i], left, right)));
    }
    // Among cuts of one piece, the longest left half goes first; ties keep the order of the vocabulary.
    let length = |s: &str| s.chars().count();
    merges
        .sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2)))));
    Ok(merges.into_iter().map(|(_, left, right)| (left, right)).collect())
}

/// Scores that order pieces as `merges` do: minus the place at which a piece is first put together. Pieces that no merge makes, such as
/// single characters, come after all others.
pub(crate) fn to_scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut rank: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (left, right) in merges {
        let next = rank.len();
        rank.entry(format!("{left}{right}")).or_insert(next);
    }
    let mut rest = rank.len();
    let mut scores = Vec::with_capacity(tokens.len());
    for token in tokens {
        let place = rank.get(token).or_else(|| rank.get(&token.replace(' ', SPACE))).copied().unwrap_or_else(|| {
            rest += 1;
            rest - 1
        });
        scores.push(-(place as f32));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_piece_is_merged_first_and_every_cut_of_it_counts() {
        let tokens: Vec<String> = ["a", "b", "ab", "ba", "aba"].map(String::from).to_vec();
        let merges = from_scores(&tokens, &[Type::Normal; 5], &[-9.0, -9.0, -2.0, -1.0, -3.0]).unwrap();
        assert_eq!(merges, [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")]);
        let owned: Vec<_> = merges.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let scores = to_scores(&tokens, &owned);
        assert_eq!(scores, [-3.0, -4.0, -1.0, -0.0, -2.0]);
        assert_eq!(from_scores(&tokens, &[Type::Normal; 5], &scores).unwrap(), merges);
    }

    #[test]
    fn control_tokens_are_never_put_together() {
        let tokens: Vec<String> = ["<", "s>", "<s>"].map(String::from).to_vec();
        let types = [Type::Normal, Type::Normal, Type::Control];
        assert_eq!(from_scores(&tokens, &types, &[0.0; 3]).unwrap(), []);
    }
}

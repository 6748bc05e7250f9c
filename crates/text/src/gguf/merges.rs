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

/// Scores that order pieces as `merges` do, best first from zero down. Pieces whose merges are mixed with each other get the same score:
/// they had it before. Pieces that no merge makes, such as single characters, come after all others.
pub(crate) fn to_scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let unions: Vec<String> = merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    let last: HashMap<&str, usize> = unions.iter().enumerate().map(|(i, union)| (union.as_str(), i)).collect();
    let mut rank: HashMap<&str, usize> = HashMap::with_capacity(last.len());
    let (mut group, mut end) = (0, 0);
    for (i, union) in unions.iter().enumerate() {
        if i > end {
            group += 1;
        }
        end = end.max(last[union.as_str()]);
        rank.insert(union, group);
    }
    let mut rest = group;
    let score = |token: &String| {
        let found = rank.get(token.as_str()).or_else(|| rank.get(token.replace(' ', SPACE).as_str()));
        let place = found.copied().unwrap_or_else(|| {
            rest += 1;
            rest
        });
        -(place as f32)
    };
    tokens.iter().map(score).collect()
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
    fn pieces_of_one_score_keep_one_score() {
        // Llama 2 gives all its runs of blanks the same score, which mixes their merges by length.
        let tokens: Vec<String> = ["_", "x", "__", "___", "____", "x_"].map(String::from).to_vec();
        let merges = from_scores(&tokens, &[Type::Normal; 6], &[0.0, 0.0, -1e9, -1e9, -1e9, -3.0]).unwrap();
        assert_eq!(
            merges,
            [("x", "_"), ("___", "_"), ("__", "__"), ("__", "_"), ("_", "___"), ("_", "__"), ("_", "_")]
        );
        let owned: Vec<_> = merges.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let scores = to_scores(&tokens, &owned);
        // "__" is made last and by one merge only, so it can have a score of its own.
        assert_eq!(scores, [-3.0, -4.0, -2.0, -1.0, -1.0, -0.0]);
        assert_eq!(from_scores(&tokens, &[Type::Normal; 6], &scores).unwrap(), merges);
    }

    #[test]
    fn control_tokens_are_never_put_together() {
        let tokens: Vec<String> = ["<", "s>", "<s>"].map(String::from).to_vec();
        let types = [Type::Normal, Type::Normal, Type::Control];
        assert_eq!(from_scores(&tokens, &types, &[0.0; 3]).unwrap(), []);
    }
}

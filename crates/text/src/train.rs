//! A small byte-level BPE tokenizer trained on the spot.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer as Library};

use crate::Error;

/// The words of Qwen2's tokenizer.
const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains a byte-level BPE tokenizer of at most `vocabulary` tokens, `special` ones first, and gives its tokenizer.json.
/// The same texts give the same bytes.
pub fn train_byte_level(texts: &[&str], vocabulary: usize, special: &[&str]) -> Result<Vec<u8>, Error> {
    let fail = |e: tokenizers::Error| Error::Library { doing: "train a tokenizer", message: e.to_string() };
    let mut tokenizer = Library::new(BPE::default());
    let split =
        Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false).map_err(fail)?;
    let bytes = ByteLevel::new(false, true, false);
    let steps = vec![PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(bytes)];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps))).with_decoder(Some(bytes));
    tokenizer.with_normalizer(Some(tokenizers::normalizers::NFC));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.iter().map(|s| AddedToken::from(s.to_string(), true)).collect())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts.iter().map(|t| t.to_string())).map_err(fail)?;
    tokenizer.to_string(true).map(String::into_bytes).map_err(fail)
}

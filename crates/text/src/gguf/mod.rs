//! The `tokenizer.*` keys of GGUF: what they mean and how they are written.

mod merges;
pub(crate) mod pre;
mod read;
pub(crate) mod vocabulary;
mod write;

pub(crate) use read::{Read, read};
pub use write::to_gguf;

/// Names of the keys.
pub(crate) mod key {
    pub const MODEL: &str = "tokenizer.ggml.model";
    pub const PRE: &str = "tokenizer.ggml.pre";
    pub const TOKENS: &str = "tokenizer.ggml.tokens";
    pub const SCORES: &str = "tokenizer.ggml.scores";
    pub const TYPES: &str = "tokenizer.ggml.token_type";
    pub const MERGES: &str = "tokenizer.ggml.merges";
    pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
    pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
    pub const ADD_SEP: &str = "tokenizer.ggml.add_sep_token";
    pub const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
    pub const REMOVE_EXTRA_WHITESPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
    pub const CHARACTER_MAP: &str = "tokenizer.ggml.precompiled_charsmap";
    pub const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
    pub const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";
    pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
    pub const CHAT_TEMPLATES: &str = "tokenizer.chat_templates";
}

/// Special tokens: the name that Hugging Face gives each, and its key (one of them spelled wrongly since the beginning).
pub(crate) const SPECIAL: [(&str, &str); 9] = [
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("sep", "tokenizer.ggml.seperator_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("cls", "tokenizer.ggml.cls_token_id"),
    ("mask", "tokenizer.ggml.mask_token_id"),
    ("eot", "tokenizer.ggml.eot_token_id"),
    ("eom", "tokenizer.ggml.eom_token_id"),
];

/// Where a space stands in sentencepiece vocabularies.
pub(crate) const SPACE: &str = "▁";

/// The byte that a piece like `<0x0A>` stands for.
pub(crate) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

//! Any tokenizer.json is read or refused; what is read encodes and decodes any text, and goes to GGUF and back or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_tensor::Limits;
use windlass_text::{HfFiles, Tokenizer, to_gguf, to_hf};

const TEXT: &str = "Hello,  world 123 \u{e4}\u{1f600}\u{4f60}\n\t'll <s>";

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let Ok(tokenizer) = Tokenizer::from_json(bytes, &limits) else { return };
    if let Ok(tokens) = tokenizer.encode(TEXT, true) {
        let _ = tokenizer.decode(&tokens, false);
        let _ = tokenizer.decode(&tokens, true);
    }
    let _ = tokenizer.decode(&[0, u32::MAX], false);
    let size = tokenizer.vocabulary_size();
    let files = HfFiles { tokenizer_json: bytes.to_vec(), ..HfFiles::default() };
    let Ok((metadata, _)) = to_gguf(&files, size, "fuzz", &limits) else { return };
    let _ = Tokenizer::from_gguf(&metadata, &limits);
    let _ = to_hf(&metadata, &limits);
});

//! Any tokenizer.json is read or refused; what is read encodes and decodes any text, and goes to GGUF and back or is refused.
#![no_main]

use std::panic;
use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use windlass_tensor::Limits;
use windlass_text::{HfFiles, Tokenizer, to_gguf, to_hf};

const TEXT: &str = "Hello,  world 123 \u{e4}\u{1f600}\u{4f60}\n\t'll <s>";

/// Panics inside of the tokenizers library are caught where it is called, and count as refusals; the fuzzer would take any
/// panic for a crash.
fn let_the_library_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let crash = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_library = info.location().is_some_and(|place| place.file().contains("/tokenizers-"));
            if !of_library {
                crash(info);
            }
        }));
    });
}

fuzz_target!(|bytes: &[u8]| {
    let_the_library_panic();
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

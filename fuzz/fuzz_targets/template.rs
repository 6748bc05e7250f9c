//! Any chat template renders or is refused, within its fuel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, json};
use windlass_tensor::Limits;
use windlass_text::{Message, render_chat};

fuzz_target!(|bytes: &[u8]| {
    let Ok(template) = std::str::from_utf8(bytes) else { return };
    // Steps of the template language take longer under the fuzzer than they do elsewhere.
    let limits = Limits { template_fuel: 20_000, ..Limits::default() };
    let messages = [Message::new("system", "Be brief."), Message::new("user", "What is 2 + 2?"), Message::new("assistant", "4")];
    let mut extra = Map::new();
    extra.insert("bos_token".into(), json!("<s>"));
    extra.insert("eos_token".into(), json!("</s>"));
    let _ = render_chat(template, &messages, true, &extra, &limits);
});

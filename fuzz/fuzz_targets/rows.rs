//! Any file of rows becomes examples or is refused: JSON lines, JSON, CSV, Parquet, text and arrays, of every shape.
#![no_main]

use std::io::Cursor;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use windlass_tensor::Limits;
use windlass_text::{Tokenizer, train_byte_level};
use windlass_train::data::{ChatTemplate, Reading, Truncation, read_from};

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let json = train_byte_level(&["the quick brown fox"], 300, &[]).expect("a tokenizer is trained");
        Tokenizer::from_json(&json, &Limits::default()).expect("a trained tokenizer is read")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { template_fuel: 20_000, ..Limits::default() };
    let template = ChatTemplate { program: TEMPLATE.into(), ..ChatTemplate::default() };
    for skip_bad_rows in [false, true] {
        let how = Reading {
            tokenizer: Some(tokenizer()),
            template: Some(&template),
            truncation: Truncation::Split,
            skip_bad_rows,
            ..Reading::new(16, 300, &limits)
        };
        let Ok((examples, summary)) = read_from(Box::new(Cursor::new(bytes.to_vec())), "rows", "", &how, &mut |_| Ok(())) else {
            continue;
        };
        assert_eq!(examples.len() as u64, summary.examples);
        for index in 0..examples.len() {
            let example = examples.get(index).expect("an example that was counted");
            assert!(example.tokens.len() <= 16 && example.tokens.len() == example.labels.len() && example.targets() > 0);
        }
    }
});

//! How fast rows become tokens.
//!
//!     cargo run --release -p windlass-train --example reading -- FILE TOKENIZER_JSON [TEMPLATE]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use windlass_tensor::Limits;
use windlass_text::Tokenizer;
use windlass_train::data::{ChatTemplate, Data, Reading, read};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, tokenizer, more @ ..] = arguments.as_slice() else { panic!("FILE TOKENIZER_JSON [TEMPLATE]") };
    let limits = Limits::default();
    let tokenizer = Tokenizer::from_json(&std::fs::read(tokenizer).unwrap(), &limits).unwrap();
    let template = more.first().map(|path| ChatTemplate {
        program: std::fs::read_to_string(path).unwrap(),
        variables: serde_json::Map::new(),
    });
    let how =
        Reading { tokenizer: Some(&tokenizer), template: template.as_ref(), ..Reading::new(2048, 1 << 20, &limits) };
    let begun = Instant::now();
    let (examples, summary) = read(Path::new(file), &how, &mut |_| Ok(())).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(file).unwrap().len() as f64;
    println!(
        "{}: {} rows, {} tokens in {seconds:.2} s: {:.2} million tokens/s, {:.1} MB/s",
        summary.container,
        summary.rows,
        summary.tokens,
        summary.tokens as f64 / seconds / 1e6,
        bytes / seconds / 1e6
    );
    let begun = Instant::now();
    let packed = Data::packed(examples, 2048);
    let fill = 100.0 * packed.fill().unwrap_or(0.0);
    println!("{} packs of 2048, {fill:.2} % full, in {:.3} s", packed.units(), begun.elapsed().as_secs_f64());
}

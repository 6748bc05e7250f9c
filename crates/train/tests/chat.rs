//! Conversations: the tokens and masks of transformers (golden/chat.py).
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::Path;

use serde_json::Value as Json;
use windlass_tensor::Limits;
use windlass_text::Tokenizer;
use windlass_train::data::{ChatTemplate, Example, IGNORED, Reading, read_from};

#[test]
fn tokens_and_masks_are_those_of_transformers() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden: Json = serde_json::from_slice(&std::fs::read(here.join("tests/golden/chat.json")).unwrap()).unwrap();
    let limits = Limits::default();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let about = &golden["templates"][name];
        let file = format!("../text/tests/golden/{}.json", about["tokenizer"].as_str().unwrap());
        let tokenizer = Tokenizer::from_json(&std::fs::read(here.join(file)).unwrap(), &limits).unwrap();
        let template = ChatTemplate {
            program: about["program"].as_str().unwrap().into(),
            variables: about["variables"].as_object().unwrap().clone(),
        };
        let how = Reading {
            tokenizer: Some(&tokenizer),
            template: Some(&template),
            ..Reading::new(4096, tokenizer.vocabulary_size(), &limits)
        };
        let row = serde_json::json!({"messages": case["messages"]}).to_string();
        let (examples, _) =
            read_from(Box::new(Cursor::new(row.clone().into_bytes())), "row", "", &how, &mut |_| Ok(())).unwrap();
        let expected: Vec<Example> = case["examples"].as_array().unwrap().iter().map(example).collect();
        let found: Vec<Example> = (0..examples.len()).map(|index| examples.get(index).unwrap()).collect();
        assert_eq!(found, expected, "{name}: {row}");
        compared += found.len();
    }
    assert_eq!(compared, 30);
}

fn example(json: &Json) -> Example {
    let numbers = |name: &str| json[name].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>();
    let (tokens, mask) = (numbers("tokens"), numbers("mask"));
    let labels = tokens.iter().zip(&mask).map(|(token, mask)| if *mask == 1 { *token } else { IGNORED }).collect();
    Example { tokens: tokens.iter().map(|token| *token as u32).collect(), labels }
}

/// What a conversation cannot be, and what templates cannot do.
#[test]
fn conversations_that_cannot_be_taken_apart() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/golden/qwen2.json");
    let limits = Limits::default();
    let tokenizer = Tokenizer::from_json(&std::fs::read(here).unwrap(), &limits).unwrap();
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    for (program, message) in [
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}", "stands before message 2"),
        ("{{ raise_exception('no systems here') }}", "refuses these messages: no systems here"),
        ("{% for", "chat template"),
    ] {
        let template = ChatTemplate { program: program.into(), ..ChatTemplate::default() };
        let how = Reading {
            tokenizer: Some(&tokenizer),
            template: Some(&template),
            ..Reading::new(4096, tokenizer.vocabulary_size(), &limits)
        };
        let read = read_from(Box::new(Cursor::new(row)), "row", "", &how, &mut |_| Ok(()));
        let error = read.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains(message), "{error}");
    }
    let how = Reading { tokenizer: Some(&tokenizer), ..Reading::new(4096, tokenizer.vocabulary_size(), &limits) };
    let read = read_from(Box::new(Cursor::new(row)), "row", "", &how, &mut |_| Ok(()));
    assert!(read.map(|_| ()).unwrap_err().to_string().contains("give --template"));
}

//! Parquet: files of pyarrow (golden/parquet.py), and files that lie.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use windlass_runtime::random::Philox;
use windlass_tensor::Limits;
use windlass_text::{Tokenizer, train_byte_level};
use windlass_train::data::{ChatTemplate, Example, Examples, IGNORED, Reading, read_from};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet").join(file)
}

fn attacks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attacks/rows")
}

fn tokenizer() -> Tokenizer {
    let json = train_byte_level(&["row question answer"], 300, &[]).unwrap();
    Tokenizer::from_json(&json, &Limits::default()).unwrap()
}

fn read(bytes: &[u8], how: &Reading) -> Result<Vec<Example>, String> {
    let read = read_from(Box::new(Cursor::new(bytes.to_vec())), "rows", "", how, &mut |_| Ok(()));
    read.map(|(examples, _)| all(&examples)).map_err(|error| error.to_string())
}

fn all(examples: &Examples) -> Vec<Example> {
    (0..examples.len()).map(|index| examples.get(index).unwrap()).collect()
}

#[test]
fn files_of_pyarrow_hold_the_rows_that_were_written() {
    let limits = Limits::default();
    let tokenizer = tokenizer();
    let program = "{% for m in messages %}{{ m.role }}: {{ m.content }}.{% endfor %}";
    let template = ChatTemplate { program: program.into(), ..ChatTemplate::default() };
    let how = |format| Reading {
        tokenizer: Some(&tokenizer),
        template: Some(&template),
        format: Some(format),
        skip_bad_rows: true,
        ..Reading::new(1000, 10_000, &limits)
    };
    let rows: Vec<Json> = serde_json::from_slice(&std::fs::read(golden("rows.json")).unwrap()).unwrap();
    let numbers = |list: &Json| list.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>();
    let encode = |text: &str| {
        let tokens = tokenizer.encode(text, true).unwrap();
        Example { labels: tokens.iter().map(|t| i64::from(*t)).collect(), tokens }
    };
    let texts: Vec<Example> = rows.iter().filter_map(|row| row["text"].as_str()).map(encode).collect();
    let tokens: Vec<Example> = rows
        .iter()
        .map(|row| Example {
            tokens: numbers(&row["input_ids"]).iter().map(|id| *id as u32).collect(),
            labels: numbers(if row["labels"].is_null() { &row["input_ids"] } else { &row["labels"] }),
        })
        .collect();
    let said = |row: &Json| {
        let each = row["messages"].as_array().unwrap().iter();
        each.map(|m| format!("{}: {}.", m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
            .collect::<String>()
    };
    assert!(texts.len() == 160 && tokens.iter().any(|e| e.labels.contains(&IGNORED)));
    for file in ["snappy.parquet", "zstd.parquet", "plain.parquet", "lz4.parquet"] {
        let bytes = std::fs::read(golden(file)).unwrap();
        assert_eq!(read(&bytes, &how("text")).unwrap(), texts, "{file}");
        assert_eq!(read(&bytes, &how("tokens")).unwrap(), tokens, "{file}");
        let chats = Reading { train_on: windlass_train::data::TrainOn::All, ..how("chat") };
        assert_eq!(
            read(&bytes, &chats).unwrap(),
            rows.iter().map(|row| encode(&said(row))).collect::<Vec<_>>(),
            "{file}"
        );
    }
}

#[test]
fn files_that_lie_are_refused() {
    let limits = Limits::default();
    let tokenizer = tokenizer();
    let how = Reading { tokenizer: Some(&tokenizer), ..Reading::new(1000, 10_000, &limits) };
    let expected = [
        ("gzip.parquet", "is compressed with GZIP"),
        ("delta.parquet", "encoded with DELTA_BYTE_ARRAY"),
        ("list-in-list.parquet", "is a list within a list"),
        ("no-column.parquet", "has the columns words, of which none is known"),
        ("not-utf8.parquet", "not UTF-8"),
        ("page-unpacked-huge.parquet", "a page of 2147483647 bytes is more than the limit of"),
        ("page-unpacked-negative.parquet", "does not say how large it is"),
        ("page-unpacked-less.parquet", "not as large as its header says"),
        ("page-size-huge.parquet", "is longer than its column"),
        ("page-size-negative.parquet", "does not say how large it is"),
        ("page-count-huge.parquet", "more values than its column"),
        ("page-count-negative.parquet", "more values than its column"),
        ("dictionary-count-huge.parquet", "a dictionary of 2147483647 values has"),
        ("footer-huge.parquet", "its footer has 4294967295 bytes, the limit is"),
        ("footer-past-begin.parquet", "its footer is longer than the file"),
        ("footer-list-huge.parquet", "its footer is cut"),
        ("footer-deep.parquet", "nested too deeply"),
        ("footer-empty.parquet", "its footer is cut"),
        ("encrypted.parquet", "is encrypted"),
        ("truncated.parquet", "it was cut"),
        ("truncated-tail.parquet", "it was cut"),
        ("hole.parquet", "rows, row 1: "),
        ("deep.jsonl", "line 1: is not a JSON row: lists and objects are nested too deeply"),
        ("twice.jsonl", "line 1: is not a JSON row: \"text\" is there twice"),
        ("huge-number.jsonl", "line 1: is not a JSON row: number out of range"),
        ("huge-token.jsonl", "line 1: \"input_ids\" holds a fraction or a huge number"),
        ("invalid.jsonl", "line 1: is not a JSON row: invalid unicode"),
        ("cut.json", "row 2: the file ends inside of a row: it was cut"),
        ("behind.json", "row 2: something follows the array"),
        ("open-quote.csv", "line 2: has 1 cells, the header has 2"),
        ("few-cells.csv", "line 2: has 1 cells, the header has 2"),
        ("twice.csv", "has two columns called \"text\""),
        ("utf-16.txt", "is UTF-16 text: save it as UTF-8"),
        ("shape-huge.npy", "shape"),
    ];
    let mut wrong = Vec::new();
    for (name, message) in expected {
        let error = read(&std::fs::read(attacks().join(name)).unwrap(), &how).unwrap_err();
        if !error.contains(message) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let files = std::fs::read_dir(attacks()).unwrap().map(|file| file.unwrap().path());
    assert_eq!(files.filter(|path| path.extension().is_none_or(|e| e != "md")).count(), expected.len());
}

/// Every cut, and changes at random, are rows or an error.
#[test]
fn damaged_files_end_in_rows_or_errors() {
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits::default();
    let tokenizer = tokenizer();
    let how = Reading {
        tokenizer: Some(&tokenizer),
        format: Some("text"),
        skip_bad_rows: true,
        ..Reading::new(100, 10_000, &limits)
    };
    let tokens = Reading { format: Some("tokens"), skip_bad_rows: true, ..Reading::new(100, 10_000, &limits) };
    let mut random = Philox::new(3);
    let (mut good, mut refused) = (0, 0);
    let mut count = |result: Result<Vec<Example>, String>| match result {
        Ok(_) => good += 1,
        Err(message) => {
            assert!(message.len() < 2000, "{message}");
            refused += 1;
        }
    };
    for file in ["snappy.parquet", "zstd.parquet", "plain.parquet", "lz4.parquet"] {
        let bytes = std::fs::read(golden(file)).unwrap();
        for end in (0..bytes.len()).step_by(211) {
            assert!(read(&bytes[..end], &how).is_err());
        }
        for round in 0..400 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + round % 3 {
                // Half of the changes hit the footer, which the end of a file is.
                let from = if round % 2 == 0 { damaged.len() - 3000 } else { 0 };
                let at = from + random.below((damaged.len() - from) as u64) as usize;
                damaged[at] = random.below(256) as u8;
            }
            count(read(&damaged, if round % 4 < 2 { &how } else { &tokens }));
        }
    }
    let _ = std::panic::take_hook();
    assert!(good > 100 && refused > 100, "{good} good, {refused} refused");
}

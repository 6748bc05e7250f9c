//! Files of rows, good and hostile.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use windlass_tensor::Limits;
use windlass_text::{Tokenizer, train_byte_level};
use windlass_train::Error;
use windlass_train::data::{
    Bad, ChatTemplate, Data, Example, Examples, Reading, Summary, TrainOn, Truncation, read_from,
};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct Words {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    limits: Limits,
}

impl Words {
    fn new() -> Self {
        let limits = Limits::default();
        let json = train_byte_level(&["the quick brown fox jumps"], 300, &["<end>", "<|im_start|>", "<|im_end|>"]);
        let tokenizer = Tokenizer::from_json(&json.unwrap(), &limits).unwrap();
        Self { tokenizer, template: ChatTemplate { program: CHATML.into(), ..ChatTemplate::default() }, limits }
    }

    fn how(&self) -> Reading<'_> {
        Reading {
            tokenizer: Some(&self.tokenizer),
            template: Some(&self.template),
            end: self.tokenizer.token("<end>"),
            ..Reading::new(64, self.tokenizer.vocabulary_size(), &self.limits)
        }
    }

    /// The text of an example, with what is learned in brackets.
    fn shown(&self, example: &Example) -> String {
        let mut text = String::new();
        let mut learned = false;
        for (token, label) in example.tokens.iter().zip(&example.labels) {
            if (*label >= 0) != learned {
                text.push(if learned { ']' } else { '[' });
                learned = !learned;
            }
            text.push_str(&self.tokenizer.decode(&[*token], false).unwrap());
        }
        if learned { text + "]" } else { text }
    }
}

fn read(bytes: impl Into<Vec<u8>>, how: &Reading) -> Result<(Vec<Example>, Summary, Vec<Bad>), Error> {
    let mut skipped = Vec::new();
    let input = Box::new(Cursor::new(bytes.into()));
    let (examples, summary) = read_from(input, "rows", "", how, &mut |bad| {
        skipped.push(bad.clone());
        Ok(())
    })?;
    Ok((all(&examples), summary, skipped))
}

fn all(examples: &Examples) -> Vec<Example> {
    (0..examples.len()).map(|index| examples.get(index).unwrap()).collect()
}

fn shown(bytes: impl Into<Vec<u8>>, words: &Words, how: &Reading) -> Vec<String> {
    read(bytes, how).unwrap().0.iter().map(|example| words.shown(example)).collect()
}

const ONE: &str = r#"{"prompt": "the ", "completion": "fox"}"#;

#[test]
fn containers_hold_the_same_rows() {
    let words = Words::new();
    let how = words.how();
    let expected = ["the [fox<end>]", "quick [\"a, b\"<end>]"];
    let two = r#"{"prompt": "quick ", "completion": "\"a, b\""}"#;
    for (container, bytes) in [
        ("JSON lines", format!("{ONE}\n{two}\n")),
        ("JSON lines", format!("\u{feff}{ONE}\r\n\r\n  {two}")),
        ("JSON", format!("[{ONE},\n{two}]\n")),
        ("JSON", format!(" [ {ONE} , {two} ] ")),
        ("JSON", format!(r#"{{"version": "1]}}", "about": {{"data": [1]}}, "data": [{ONE}, {two}], "more": 3}}"#)),
        ("CSV", "prompt,completion\nthe ,fox\nquick ,\"\"\"a, b\"\"\"\n".into()),
        ("CSV", "\u{feff}prompt;completion;n\r\nthe ;fox;1\r\nquick ;\"\"\"a, b\"\"\";\r\n".into()),
        ("CSV", "n\tcompletion\tprompt\n\tfox\tthe \n2\t\"\"\"a, b\"\"\"\tquick \n".into()),
    ] {
        let (examples, summary, _) = read(bytes.clone(), &how).unwrap();
        assert_eq!(summary.container, container, "{bytes}");
        assert_eq!(examples.iter().map(|e| words.shown(e)).collect::<Vec<_>>(), expected, "{bytes}");
        assert_eq!((summary.rows, summary.examples, summary.formats["completion"]), (2, 2, 2));
    }
}

#[test]
fn shapes_say_what_is_learned() {
    let words = Words::new();
    let how = Reading { context: 1000, ..words.how() };
    let task = "Below is an instruction that describes a task";
    let write = "Write a response that appropriately completes the request.";
    let paired = "paired with an input that provides further context";
    for (row, expected) in [
        (r#"{"text": "fox"}"#, "[fox<end>]".to_string()),
        (
            r#"{"instruction": "jump", "input": "", "output": "done"}"#,
            format!("{task}. {write}\n\n### Instruction:\njump\n\n### Response:[done<end>]"),
        ),
        (
            r#"{"instruction": "jump", "input": "fox", "output": "done"}"#,
            format!(
                "{task}, {paired}. {write}\n\n### Instruction:\njump\n\n### Input:\nfox\n\n### Response:[done<end>]"
            ),
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n<|im_start|>user\nc<|im_end|>\n\
             <|im_start|>assistant\n[d<|im_end|>]\n"
                .into(),
        ),
        (
            r#"{"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n"
                .into(),
        ),
    ] {
        let row = row.replace('\n', " ");
        assert_eq!(shown(row.clone(), &words, &how), [expected], "{row}");
        let every = Reading { train_on: TrainOn::All, context: 1000, ..words.how() };
        let (examples, summary, _) = read(row.clone(), &every).unwrap();
        assert!(examples[0].labels.iter().zip(&examples[0].tokens).all(|(l, t)| *l == i64::from(*t)), "{row}");
        assert_eq!(summary.targets + 1, summary.tokens);
    }
    let given = r#"{"input_ids": [1, 2, 3], "labels": [-100, -100, 7]}"#;
    assert_eq!(read(given, &how).unwrap().0, [Example { tokens: vec![1, 2, 3], labels: vec![-100, -100, 7] }]);
    let table = "input_ids,labels\n\"[1, 2, 3]\",-100 -100 7\n";
    assert_eq!(read(table, &how).unwrap().0, read(given, &how).unwrap().0);
}

#[test]
fn columns_are_named_and_formats_forced() {
    let words = Words::new();
    let columns = [("prompt".to_string(), "question".to_string()), ("completion".into(), "answer".into())];
    let mapped = Reading { columns: &columns, ..words.how() };
    let expected = ["the [fox<end>]"];
    assert_eq!(shown(r#"{"question": "the ", "answer": "fox", "prompt": "no"}"#, &words, &mapped), expected);
    assert_eq!(shown("question,answer\nthe ,fox\n", &words, &mapped), expected);
    let error = read(r#"{"question": "the ", "answer": "fox"}"#, &words.how()).unwrap_err().to_string();
    assert!(error.contains("question, answer") && error.contains("--columns"), "{error}");
    let text = Reading { format: Some("text"), ..words.how() };
    assert_eq!(shown(r#"{"text": "fox", "prompt": "a", "completion": "b"}"#, &words, &text), ["[fox<end>]"]);
    let wrong = read(ONE, &Reading { format: Some("texts"), ..words.how() }).unwrap_err();
    assert!(matches!(wrong, Error::Setting(_)), "{wrong}");
}

#[test]
fn text_is_one_long_sequence() {
    let words = Words::new();
    let how = Reading { context: 9, ..words.how() };
    let text = "the quick brown fox jumps\nover the lazy dog\n".repeat(40);
    let (examples, summary, _) = read(text.clone(), &how).unwrap();
    assert_eq!(summary.container, "text");
    let whole = words.tokenizer.encode(&text, true).unwrap();
    let mut joined: Vec<u32> = examples[0].tokens.clone();
    examples[1..].iter().for_each(|example| joined.extend(&example.tokens[1..]));
    assert_eq!(joined.split_last().unwrap(), (&how.end.unwrap(), whole.as_slice()));
    assert_eq!(summary.targets as usize, whole.len());
}

#[test]
fn rows_are_counted_cut_and_left_out() {
    let words = Words::new();
    let rows = "{\"input_ids\": [1, 2, 3, 4, 5]}\n{\"input_ids\": [6, 7]}\n{\"input_ids\": [8]}\n";
    let how = |truncation| Reading { truncation, context: 3, ..words.how() };
    let (examples, summary, _) = read(rows, &how(Truncation::End)).unwrap();
    assert_eq!(examples.iter().map(|e| e.tokens.len()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((summary.rows, summary.long, summary.dropped, summary.examples), (3, 1, 1, 2));
    assert_eq!(read(rows, &how(Truncation::Drop)).unwrap().1.dropped, 2);
    assert_eq!(read(rows, &how(Truncation::Split)).unwrap().1.examples, 3);
    assert!(read(rows, &how(Truncation::Error)).unwrap_err().to_string().contains("line 1: has 5 tokens"));
    let few = Reading { max_rows: Some(1), ..words.how() };
    assert_eq!(read(rows, &few).unwrap().1.rows, 1);
    let packed = Data::packed(read(rows, &words.how()).unwrap().0.into_iter().collect(), 8);
    assert_eq!((packed.units(), packed.fill()), (1, Some(7.0 / 8.0)));
}

#[test]
fn bad_rows_are_told_with_their_place() {
    let words = Words::new();
    let how = Reading { vocabulary: 300, ..words.how() };
    let skipping = Reading { skip_bad_rows: true, vocabulary: 300, ..words.how() };
    let deep = format!("{{\"text\": {}1{}}}", "[".repeat(100), "]".repeat(100));
    let long = format!("{{\"text\": \"{}\"}}", "a".repeat(65 << 20));
    for (bad, message) in [
        (r#"{"input_ids": [1, 300]}"#, "token 300 is not one of the 300"),
        (r#"{"input_ids": [1, -5]}"#, "token -5"),
        (r#"{"input_ids": [1, 2], "labels": [1, 300]}"#, "token 300"),
        (r#"{"input_ids": [1, 2], "labels": [1]}"#, "2 tokens and 1 labels"),
        (r#"{"input_ids": [1, 1e30]}"#, "a fraction or a huge number"),
        (r#"{"input_ids": [1, 99999999999999999999999]}"#, "a fraction or a huge number"),
        (r#"{"input_ids": [1, 1e999]}"#, "number out of range"),
        (r#"{"input_ids": []}"#, "has no tokens"),
        (r#"{"text": "a", "text": "b"}"#, "\"text\" is there twice"),
        (r#"{"text": 5}"#, "\"text\" is a number, expected text"),
        (r#"{"text": null}"#, "expected"),
        (r#"{"text": "a"#, "is not a JSON row"),
        (r#"["text"]"#, "is a list, expected an object"),
        (r#"{"messages": []}"#, "\"messages\" is empty"),
        (r#"{"messages": [{"role": "user"}]}"#, "message 1: \"content\" is missing"),
        (r#"{"messages": [{"role": "assistant", "content": "b"}]}"#, "begins with an answer"),
        (r#"{"conversations": "hello"}"#, "expected a list of messages"),
        (&deep, "nested too deeply"),
        (&long, "is longer than"),
    ] {
        let short: String = bad.chars().take(60).collect();
        let rows = format!("{ONE}\n\n{bad}\n{ONE}\n");
        let error = read(rows.clone(), &how).unwrap_err().to_string();
        assert!(error.starts_with("rows, line 3: ") && error.contains(message), "{short}: {error}");
        let (examples, summary, skipped) = read(rows, &skipping).unwrap();
        assert_eq!((examples.len(), summary.skipped, skipped.len()), (2, 1, 1), "{short}");
    }
    let invalid = [ONE.as_bytes(), b"\n{\"text\": \"\xff\"}\n"].concat();
    assert!(read(invalid, &how).unwrap_err().to_string().contains("line 2: is not a JSON row: invalid unicode"));
    let cells = "prompt,completion\na,b\nc\nd,e\n";
    assert!(read(cells, &how).unwrap_err().to_string().contains("line 3: has 1 cells, the header has 2"));
    assert_eq!(read(cells, &skipping).unwrap().1.skipped, 1);
    let invalid = b"prompt,completion\na,b\nc,\xff\n".to_vec();
    assert!(read(invalid, &how).unwrap_err().to_string().contains("line 3: \"completion\" is not UTF-8"));
    let array = format!("[{ONE}, 5, {ONE}]");
    assert!(read(array.clone(), &how).unwrap_err().to_string().contains("row 2: is a number"));
    assert_eq!(read(array, &skipping).unwrap().1.skipped, 1);
}

#[test]
fn files_that_are_no_files_of_rows() {
    let words = Words::new();
    let how = Reading { skip_bad_rows: true, ..words.how() };
    let many: String = (0..5000).map(|i| format!("c{i},")).collect();
    for (bytes, message) in [
        (b"".to_vec(), "has no rows"),
        (b"\n \n".to_vec(), "has no rows"),
        (b"[]".to_vec(), "has no rows"),
        (b"\xef\xbb\xbf".to_vec(), "has no rows"),
        (b"{\"words\": 1}\n".to_vec(), "no good row among 1"),
        (b"[{\"text\": \"a\"}".to_vec(), "the file was cut"),
        (b"[{\"text\": \"a\"}]]".to_vec(), "something follows the array"),
        (b"[{\"text\": \"a\"} {\"text\": \"a\"}]".to_vec(), "expected , or ]"),
        (b"[{\"text\": \"a\"},]".to_vec(), "expected a row"),
        (b"[{\"text\": \"a".to_vec(), "it was cut"),
        (b"{\"data\": [{\"text\": \"a\"}".to_vec(), "the file was cut"),
        (b"\x00\x01\x02".to_vec(), "is not text"),
        (b"\xff\xfea\x00".to_vec(), "UTF-16"),
        (b"\x1f\x8b\x08".to_vec(), "gzip"),
        (b"PK\x03\x04".to_vec(), "zip archive"),
        (b"PAR1".to_vec(), "it was cut"),
        (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "ends inside its header"),
        (b"text,text\na,b\n".to_vec(), "two columns called \"text\""),
        (format!("{many}text\n").into_bytes(), "5001 columns, the limit is 4096"),
    ] {
        let error = read(bytes.clone(), &how).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{:?}: {error}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
    }
}

#[test]
fn arrays_of_numpy_are_tokens() {
    let words = Words::new();
    let array = |descr: &str, shape: &str, bytes: &[u8]| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let text = format!("{text:<117}\n");
        [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), bytes].concat()
    };
    let how = Reading { context: 4, ..words.how() };
    let tokens = |bytes: Vec<u8>| read(bytes, &how).unwrap().0.into_iter().map(|e| e.tokens).collect::<Vec<_>>();
    assert_eq!(tokens(array("<u2", "(2, 3)", &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0])), [[1, 2, 3], [4, 5, 6]]);
    let sequence: Vec<u8> = (1..=7i64).flat_map(i64::to_le_bytes).collect();
    assert_eq!(tokens(array("<i8", "(7,)", &sequence)), [[1, 2, 3, 4], [4, 5, 6, 7]]);
    for (bytes, message) in [
        (array("<f4", "(1,)", &[0; 4]), "expected whole numbers"),
        (array("<u2", "(1, 1, 1)", &[0; 2]), "expected [rows, tokens] or [tokens]"),
        (array("<u2", "(9,)", &[0; 2]), "has 18 bytes, found 2"),
        (array("<i4", "(1, 2)", &[1, 0, 0, 0, 255, 255, 255, 255]), "row 1: token -1"),
        (array("<u8", "(1, 1)", &[255; 8]), "is not one of"),
    ] {
        let error = read(bytes, &how).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

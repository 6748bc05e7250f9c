//! JSON from outside: bounded in depth, no key twice, and edits that leave every other byte alone.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Refuses text that nests deeper than `limit`. Does not check anything else.
pub fn check_depth(text: &[u8], limit: usize) -> Result<(), String> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in text {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return Err(format!("the JSON is nested deeper than {limit}"));
        }
    }
    Ok(())
}

/// A JSON object with its members in order. A key that comes twice is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut seen) = (Vec::new(), HashSet::new());
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("the key {:?} comes twice", short(&key))));
                    }
                    members.push((key, value));
                }
                Ok(Unique(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// One member of an object, and where its value stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub key: String,
    /// Bytes of the value.
    pub value: Range<usize>,
}

/// Members of the outermost object of `text`, in order. Values are not parsed: a config.json may hold the `Infinity`
/// that Python writes and JSON does not know.
pub fn members(text: &[u8], limit: usize) -> Result<Vec<Member>, String> {
    check_depth(text, limit)?;
    let mut scan = Scan { text, at: 0 };
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    scan.expect(b'{')?;
    if scan.peek() != Some(b'}') {
        loop {
            let key = scan.key()?;
            scan.expect(b':')?;
            let value = scan.value()?;
            if !seen.insert(key.clone()) {
                return Err(format!("the key {:?} comes twice", short(&key)));
            }
            found.push(Member { key, value });
            if scan.peek() != Some(b',') {
                break;
            }
            scan.expect(b',')?;
        }
    }
    scan.expect(b'}')?;
    match scan.peek() {
        None => Ok(found),
        Some(_) => Err(format!("something follows the object at byte {}", scan.at)),
    }
}

/// `text` (an object) without the members `remove`, and with the members `add` at its end; all else keeps its order and
/// spelling. The values of `add` are JSON.
pub fn edit(text: &[u8], remove: &[&str], add: &[(&str, String)], limit: usize) -> Result<Vec<u8>, String> {
    let old = members(text, limit)?;
    let piece = |m: &Member| text.get(m.value.clone()).unwrap_or_default().to_vec();
    let kept = old.iter().filter(|m| !remove.contains(&m.key.as_str()));
    let mut all: Vec<(String, Vec<u8>)> = kept.map(|m| (m.key.clone(), piece(m))).collect();
    all.extend(add.iter().map(|(key, value)| (key.to_string(), value.clone().into_bytes())));
    let indent = indentation(text);
    let mut out = b"{".to_vec();
    for (i, (key, value)) in all.iter().enumerate() {
        out.extend(if i == 0 { "\n" } else { ",\n" }.bytes());
        out.extend(indent.bytes());
        out.extend(quote_ascii(key).bytes());
        out.extend(b": ");
        out.extend(value);
    }
    out.extend(b"\n}\n");
    Ok(out)
}

/// The white space before the first key of an object, four spaces where there is none.
pub fn indentation(text: &[u8]) -> String {
    let lead = text.iter().skip_while(|b| **b != b'\n').skip(1).take_while(|b| matches!(b, b' ' | b'\t'));
    let lead: String = lead.take(16).map(|b| char::from(*b)).collect();
    if lead.is_empty() { "    ".into() } else { lead }
}

/// A JSON string in ASCII alone, as Python writes it.
pub fn quote_ascii(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// The beginning of a text from outside, for a message.
pub fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(format!("expected {:?} at byte {}", char::from(byte), self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<String, String> {
        self.peek();
        let start = self.at;
        self.string()?;
        let raw = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_slice(raw).map_err(|e| format!("the key at byte {start} is not a JSON string: {e}"))
    }

    fn string(&mut self) -> Result<(), String> {
        self.expect(b'"')?;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err("a string does not end".into()),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Skips one value: up to the comma or brace that ends it on this level.
    fn value(&mut self) -> Result<Range<usize>, String> {
        self.peek();
        let start = self.at;
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        let end = start + raw.trim_ascii_end().len();
        if end == start { Err(format!("expected a value at byte {start}")) } else { Ok(start..end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_without_parsing_their_values() {
        let text = br#" {"a" : [1, {"b": "}"}], "c\u0041":Infinity ,"d":"\"x"} "#;
        let found = members(text, 8).unwrap();
        let all: Vec<_> = found.iter().map(|m| (m.key.as_str(), &text[m.value.clone()])).collect();
        assert_eq!(all[0], ("a", &br#"[1, {"b": "}"}]"#[..]));
        assert_eq!(all[1], ("cA", &b"Infinity"[..]));
        assert_eq!(all[2], ("d", &br#""\"x""#[..]));
    }

    #[test]
    fn broken_objects_are_refused() {
        for text in
            ["", "[]", "{", "{\"a\"", "{\"a\":", "{\"a\":}", "{\"a\":1,}", "{\"a\":1}x", "{\"a\":1,\"a\":2}", "{\"a"]
        {
            assert!(members(text.as_bytes(), 8).is_err(), "{text}");
        }
        assert!(members(b"{\"a\":[[[]]]}", 3).is_err());
    }

    #[test]
    fn an_edit_keeps_order_and_spelling() {
        let text = b"{\n  \"z\": 1e-06,\n  \"q\": {\"old\": 1},\n  \"a\": Infinity\n}";
        let out = edit(text, &["q", "none"], &[("q", "{}".into())], 8).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\n  \"z\": 1e-06,\n  \"a\": Infinity,\n  \"q\": {}\n}\n");
    }

    #[test]
    fn strings_are_written_as_python_writes_them() {
        assert_eq!(quote_ascii("a\"é😀"), "\"a\\\"\\u00e9\\ud83d\\ude00\"");
    }
}

//! Routing tables as text: a line for each rule, the first that fits decides.
//!
//! ```text
//! # op or pattern   where it holds             = providers, the preferred one first
//! linear            dtype q4_0 size 4K..       = simd
//! attention         device wgpu:0              = wgsl
//! *                                            = simd, reference
//! include "more.routes"
//! ```

use std::path::Path;
use std::sync::Arc;

use super::Question;
use crate::provider::Reference;
use crate::{Error, all_ops, provider};

/// How deep files may include one another.
const DEPTH: usize = 8;

/// The lines of one table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub lines: Vec<Line>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Name of an op; `*` stands for any characters.
    pub op: String,
    pub device: Option<String>,
    pub dtype: Option<String>,
    /// Values of the first output: from, up to and without.
    pub size: (usize, usize),
    pub providers: Vec<&'static str>,
    /// File and line.
    pub source: Arc<str>,
}

impl Line {
    /// Whether the rule speaks of this op.
    pub fn names(&self, op: &str) -> bool {
        matches(&self.op, op)
    }

    /// Whether the rule holds for a call.
    pub fn fits(&self, question: &Question) -> bool {
        let device = self.device.as_deref().is_none_or(|device| {
            device == question.device || question.device.strip_prefix(device).is_some_and(|rest| rest.starts_with(':'))
        });
        let dtype = self.dtype.as_deref().is_none_or(|dtype| dtype.eq_ignore_ascii_case(question.dtype));
        device && dtype && (self.size.0..self.size.1).contains(&question.values) && matches(&self.op, question.op)
    }
}

impl Table {
    /// Reads a file, and those it includes.
    pub fn read(path: &Path) -> Result<Table, Error> {
        read(path, DEPTH)
    }
}

/// Parses a table; `place` names it in messages. It includes nothing.
pub fn parse(text: &str, place: &str) -> Result<Table, Error> {
    lines(text, place, &mut |_, name| Err(format!("{name:?} cannot be included here: give the table as a file")))
}

fn read(path: &Path, depth: usize) -> Result<Table, Error> {
    let place = path.display().to_string();
    let fail = |message: String| Error::Route { place: place.clone(), message };
    if depth == 0 {
        return Err(fail(format!("more than {DEPTH} files include one another")));
    }
    let length = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if length > 1 << 20 {
        return Err(fail(format!("has {length} bytes, a table has at most 1 MiB")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    lines(&text, &place, &mut |table, name| {
        let included = path.parent().unwrap_or(Path::new(".")).join(name);
        let more = read(&included, depth - 1).map_err(|e| e.to_string())?;
        table.lines.extend(more.lines);
        Ok(())
    })
}

type Include<'a> = dyn FnMut(&mut Table, &str) -> Result<(), String> + 'a;

fn lines(text: &str, place: &str, include: &mut Include) -> Result<Table, Error> {
    let mut table = Table::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let place = format!("{place}:{}", number + 1);
        let fail = |message: String| Error::Route { place: place.clone(), message };
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("include ") {
            include(&mut table, name.trim().trim_matches('"')).map_err(fail)?;
            continue;
        }
        table.lines.push(rule(line, &place).map_err(fail)?);
    }
    Ok(table)
}

fn rule(line: &str, place: &str) -> Result<Line, String> {
    let (left, right) = line.split_once('=').ok_or("expected OP ... = PROVIDER, there is no =")?;
    let mut words = left.split_whitespace();
    let op = words.next().ok_or("expected the name of an op before =")?.to_string();
    if !all_ops().any(|known| matches(&op, known.name)) {
        return Err(crate::op(&op).map_or_else(|e| e.to_string(), |_| String::new()));
    }
    let (mut device, mut dtype, mut size) = (None, None, (0, usize::MAX));
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("expected a value after {word:?}"))?;
        match word {
            "device" => device = Some(value.to_string()),
            "dtype" => dtype = Some(value.to_string()),
            "size" => size = range(value)?,
            other => return Err(format!("expected device, dtype or size, found {other:?}")),
        }
    }
    let named = |name: &str| match name {
        Reference::NAME => Ok(Reference::NAME),
        name => provider(name).map(|p| p.name).map_err(|e| e.to_string()),
    };
    let providers = right.split(',').map(|name| named(name.trim())).collect::<Result<Vec<_>, String>>()?;
    Ok(Line { op, device, dtype, size, providers, source: place.into() })
}

/// `4K..1M`, `..64`, `1G..`: values of the first output.
fn range(text: &str) -> Result<(usize, usize), String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("expected a range such as 4K..1M, found {text:?}"))?;
    let number = |text: &str, empty: usize| -> Result<usize, String> {
        if text.is_empty() {
            return Ok(empty);
        }
        let (digits, unit) = match text.chars().last() {
            Some('K') => (&text[..text.len() - 1], 1usize << 10),
            Some('M') => (&text[..text.len() - 1], 1 << 20),
            Some('G') => (&text[..text.len() - 1], 1 << 30),
            _ => (text, 1),
        };
        let count: usize = digits.parse().map_err(|_| format!("expected a number such as 64 or 4K, found {text:?}"))?;
        count.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
    };
    let (from, to) = (number(from, 0)?, number(to, usize::MAX)?);
    if from < to { Ok((from, to)) } else { Err(format!("the range {text:?} is empty")) }
}

/// Whether `name` fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(after) = name.strip_prefix(head) else { return false };
    (0..=after.len()).any(|at| after.is_char_boundary(at) && matches(rest, &after[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(op: &'static str, dtype: &'static str, values: usize) -> Question<'static> {
        Question { op, device: "cpu", dtype, values }
    }

    #[test]
    fn a_line_says_op_type_size_and_providers() {
        let table = parse("# all\nlinear dtype q4_0 size 4K..1M = reference\n* = reference\n", "t").unwrap();
        assert_eq!(table.lines[0].size, (4096, 1 << 20));
        assert!(table.lines[0].fits(&question("linear", "q4_0", 4096)));
        assert!(!table.lines[0].fits(&question("linear", "q4_0", 4095)));
        assert!(!table.lines[0].fits(&question("linear", "F32", 4096)));
        assert!(table.lines[1].fits(&question("softmax", "F32", 1)));
        assert_eq!(&*table.lines[1].source, "t:3");
    }

    #[test]
    fn errors_have_a_line_and_a_suggestion() {
        for (text, expected) in [
            ("linear reference", "t:1: expected OP"),
            ("\nlinaer = reference", "t:2: no op is called \"linaer\"; did you mean \"linear\"?"),
            ("linear = referense", "did you mean \"reference\"?"),
            ("linear size 4K = reference", "expected a range"),
            ("linear size 4..2 = reference", "is empty"),
            ("linear colour red = reference", "expected device, dtype or size"),
            ("linear dtype = reference", "expected a value"),
            ("include \"x\"", "cannot be included here"),
        ] {
            let error = parse(text, "t").unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn files_include_files_but_not_themselves() {
        let folder = std::env::temp_dir().join(format!("windlass-routes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a"), "include \"b\"\nlinear = reference\n").unwrap();
        std::fs::write(folder.join("b"), "softmax = reference\n").unwrap();
        std::fs::write(folder.join("loop"), "include \"loop\"\n").unwrap();
        let names: Vec<String> = Table::read(&folder.join("a")).unwrap().lines.into_iter().map(|l| l.op).collect();
        assert_eq!(names, ["softmax", "linear"]);
        assert!(Table::read(&folder.join("loop")).unwrap_err().to_string().contains("include one another"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

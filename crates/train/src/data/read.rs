//! Files become examples.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use windlass_tensor::Limits;
use windlass_text::Tokenizer;

use super::containers::{self, Row, Stream, Wanted};
use super::shapes::{ChatTemplate, Draft, SHAPES, Shape};
use super::{Bad, Collector, Example, Examples, IGNORED, Input, Truncation};
use crate::Error;

/// Rows that are turned into tokens together, and the bytes from which on there are enough.
const ROWS: usize = 256;
const BYTES: usize = 4 << 20;

/// How rows are read.
pub struct Reading<'a> {
    /// Needed for rows of text.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Needed for conversations.
    pub template: Option<&'a ChatTemplate>,
    /// Tokens that an example may have.
    pub context: usize,
    /// Number of tokens that the model knows.
    pub vocabulary: usize,
    /// Appended to text that ends.
    pub end: Option<u32>,
    /// The shape that all rows have, where it is not found out from their columns.
    pub format: Option<&'a str>,
    /// Names that shapes know, and what the file calls them.
    pub columns: &'a [(String, String)],
    pub train_on: TrainOn,
    pub truncation: Truncation,
    /// Rows after so many are not read.
    pub max_rows: Option<u64>,
    /// Whether bad rows are passed over, and told, instead of ending it all.
    pub skip_bad_rows: bool,
    /// Bytes of examples that are kept in memory; more go to a file without a name in `folder`.
    pub memory: u64,
    pub folder: Option<PathBuf>,
    pub limits: &'a Limits,
}

impl<'a> Reading<'a> {
    /// The defaults, for a model.
    pub fn new(context: usize, vocabulary: usize, limits: &'a Limits) -> Self {
        Reading {
            tokenizer: None,
            template: None,
            context,
            vocabulary,
            end: None,
            format: None,
            columns: &[],
            train_on: TrainOn::default(),
            truncation: Truncation::default(),
            max_rows: None,
            skip_bad_rows: false,
            memory: 1 << 30,
            folder: None,
            limits,
        }
    }
}

/// What of a row is learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainOn {
    /// Completions, outputs, what the assistant says; all of plain text.
    #[default]
    Completion,
    /// Every token.
    All,
}

/// What reading came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub container: &'static str,
    /// Rows that were read, bad ones among them.
    pub rows: u64,
    /// Good rows of each shape.
    pub formats: BTreeMap<&'static str, u64>,
    pub examples: u64,
    pub tokens: u64,
    /// Tokens that are learned.
    pub targets: u64,
    /// Bad rows that were passed over.
    pub skipped: u64,
    /// Examples that were longer than the context: cut, split or left out.
    pub long: u64,
    /// Examples that were left out because they are too long, or because nothing of them is learned.
    pub dropped: u64,
}

/// Reads the rows of a file. `told` hears of bad rows that are passed over.
pub fn read(
    path: &Path,
    how: &Reading,
    told: &mut dyn FnMut(&Bad) -> Result<(), Error>,
) -> Result<(Examples, Summary), Error> {
    let file = File::open(path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    read_from(Box::new(file), &path.display().to_string(), extension, how, told)
}

/// Reads rows from anywhere; `name` is what errors call it.
pub fn read_from(
    input: Box<dyn Input>,
    name: &str,
    extension: &str,
    how: &Reading,
    told: &mut dyn FnMut(&Bad) -> Result<(), Error>,
) -> Result<(Examples, Summary), Error> {
    let shapes = shapes(how)?;
    let names = wanted(how, &shapes);
    let fits = |columns: &[String]| {
        let has = |name: &str| columns.iter().any(|column| ours(how, column) == name);
        shapes.iter().any(|shape| shape.fits(&has))
    };
    let wanted = Wanted { names: &names, fits: &fits };
    let refuse = |message: String| Error::Data(format!("{name}: {message}"));
    let (container, mut rows) = containers::open(input, extension, &wanted, how.limits).map_err(refuse)?;
    let mut summary = Summary { container: container.name(), ..Summary::default() };
    let mut collector = Collector::new(how.memory, how.folder.clone());
    let mut ended = false;
    while !ended {
        let mut together = Vec::new();
        let mut bytes = 0;
        while together.len() < ROWS && bytes < BYTES && !ended {
            if how.max_rows.is_some_and(|most| summary.rows >= most) {
                ended = true;
                break;
            }
            let Some(row) = rows.next() else {
                ended = true;
                break;
            };
            summary.rows += 1;
            match &row {
                Ok(row) => bytes += row.columns.bytes(),
                Err(bad) => ended = bad.last,
            }
            together.push(row);
        }
        let made = together.into_par_iter().map(|row| row.and_then(|row| examples(row, how, &shapes)));
        for made in made.collect::<Vec<_>>() {
            match made {
                Ok(made) => keep(made, how, &mut collector, &mut summary)?,
                Err(bad) if how.skip_bad_rows && !bad.last => {
                    summary.skipped += 1;
                    told(&bad)?;
                }
                Err(Bad { place, message, .. }) => return Err(Error::Row { file: name.into(), place, message }),
            }
        }
    }
    if collector.is_empty() {
        let why = match summary {
            Summary { rows: 0, .. } => "has no rows".to_string(),
            Summary { rows, skipped, .. } if rows == skipped => format!("has no good row among {rows}"),
            _ => "has no tokens to learn".to_string(),
        };
        return Err(Error::Data(format!("{name} {why}")));
    }
    let examples = collector.finish()?;
    Ok((examples, summary))
}

/// The examples of a row.
struct Made {
    format: &'static str,
    /// What did not fit the context.
    long: u64,
    examples: Vec<Example>,
}

fn keep(made: Made, how: &Reading, collector: &mut Collector, summary: &mut Summary) -> Result<(), Error> {
    *summary.formats.entry(made.format).or_default() += 1;
    summary.long += made.long;
    if made.examples.is_empty() && how.truncation == Truncation::Drop {
        summary.dropped += made.long;
    }
    for example in &made.examples {
        if example.targets() == 0 {
            summary.dropped += 1;
            continue;
        }
        summary.examples += 1;
        summary.tokens += example.tokens.len() as u64;
        summary.targets += example.targets() as u64;
        collector.push(example)?;
    }
    Ok(())
}

fn examples(mut row: Row, how: &Reading, shapes: &[&'static dyn Shape]) -> Result<Made, Bad> {
    let place = row.place;
    let bad = |message: String| Bad { place, message, last: false };
    rename(&mut row, how);
    let has = |name: &str| row.columns.has(name);
    let shape = match shapes.iter().find(|shape| shape.fits(&has)) {
        Some(shape) => shape,
        None => return Err(bad(unknown(&row, shapes))),
    };
    let mut made = Made { format: shape.name(), long: 0, examples: Vec::new() };
    for draft in shape.drafts(&row.columns, how).map_err(bad)? {
        let mut example = tokenize(draft, how, row.stream).map_err(bad)?;
        if example.tokens.is_empty() {
            return Err(bad("has no tokens".into()));
        }
        if how.train_on == TrainOn::All {
            example.labels = example.tokens.iter().map(|token| i64::from(*token)).collect();
        }
        made.long += u64::from(example.tokens.len() > how.context);
        let truncation = if row.stream.is_some() { Truncation::Split } else { how.truncation };
        made.examples.extend(truncation.apply(example, how.context).map_err(bad)?);
    }
    Ok(made)
}

fn tokenize(draft: Draft, how: &Reading, stream: Option<Stream>) -> Result<Example, String> {
    let tokenizer = || how.tokenizer.ok_or("text needs a tokenizer, and the model has none");
    let mut example = Example { tokens: Vec::new(), labels: Vec::new() };
    match draft {
        Draft::Tokens(tokens) => return Ok(tokens),
        Draft::Pieces(pieces) => {
            let tokenizer = tokenizer()?;
            let last = pieces.len() - 1;
            for (at, (text, learned)) in pieces.into_iter().enumerate() {
                let mut tokens = tokenizer.encode(&text, at == 0).map_err(|error| error.to_string())?;
                if at == last && stream != Some(Stream::Goes) {
                    tokens.extend(how.end);
                }
                example.labels.extend(tokens.iter().map(|id| if learned { i64::from(*id) } else { IGNORED }));
                example.tokens.extend(tokens);
            }
        }
        Draft::Marked(text, learned) => {
            let (tokens, places) = tokenizer()?.encode_with_places(&text).map_err(|error| error.to_string())?;
            example.labels = vec![IGNORED; tokens.len()];
            for range in learned {
                let first = places.iter().position(|place| place.end > range.start).unwrap_or(tokens.len());
                let behind = places.iter().rposition(|place| place.start < range.end).map_or(0, |last| last + 1);
                let span = first..behind.max(first);
                for (label, token) in example.labels[span.clone()].iter_mut().zip(&tokens[span]) {
                    *label = (*token).into();
                }
            }
            example.tokens = tokens;
        }
    }
    match example.tokens.iter().find(|id| **id as usize >= how.vocabulary) {
        Some(id) => Err(format!("token {id} is not one of the {} of the vocabulary", how.vocabulary)),
        None => Ok(example),
    }
}

/// The shapes that rows may have.
fn shapes(how: &Reading) -> Result<Vec<&'static dyn Shape>, Error> {
    let chosen: Vec<_> = SHAPES.into_iter().filter(|s| how.format.is_none_or(|name| name == s.name())).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name()).collect();
        let message =
            format!("no format is called {:?}; there are {}", how.format.unwrap_or_default(), names.join(", "));
        return Err(Error::Setting(message));
    }
    let known: Vec<&str> = SHAPES.iter().flat_map(|shape| shape.columns()).copied().collect();
    if let Some((name, _)) = how.columns.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Error::Setting(format!("no format has a column {name:?}; there are {}", known.join(", "))));
    }
    Ok(chosen)
}

/// Columns of the file that are looked at.
fn wanted(how: &Reading, shapes: &[&'static dyn Shape]) -> Vec<String> {
    let theirs = |name: &&str| {
        let mapped = how.columns.iter().find(|(known, _)| known == name);
        mapped.map_or_else(|| name.to_string(), |(_, theirs)| theirs.clone())
    };
    shapes.iter().flat_map(|shape| shape.columns()).map(theirs).collect()
}

/// What shapes call a column of the file; nothing where another column was put in its place.
fn ours<'a>(how: &'a Reading, column: &'a str) -> &'a str {
    match how.columns.iter().find(|(_, theirs)| theirs == column) {
        Some((name, _)) => name,
        None if how.columns.iter().any(|(name, _)| name == column) => "",
        None => column,
    }
}

fn rename(row: &mut Row, how: &Reading) {
    if how.columns.is_empty() {
        return;
    }
    let renamed = row.columns.0.drain(..).map(|(name, value)| (ours(how, &name).to_owned(), value));
    let renamed = renamed.filter(|(name, _)| !name.is_empty()).collect();
    row.columns.0 = renamed;
}

fn unknown(row: &Row, shapes: &[&'static dyn Shape]) -> String {
    let names: Vec<String> = row.columns.names().take(12).map(|n| n.chars().take(40).collect()).collect();
    let found = if names.is_empty() { "no columns".into() } else { format!("the columns {}", names.join(", ")) };
    let known: Vec<String> = shapes.iter().map(|shape| format!("{} for {}", shape.needs(), shape.name())).collect();
    format!("has {found}; expected {}; or say which is which: --columns prompt=NAME,completion=NAME", known.join("; "))
}

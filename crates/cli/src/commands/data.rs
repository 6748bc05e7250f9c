use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use serde::Serialize;
use windlass::train::data::{Settings, View, view};
use windlass::{Model, Result};

use crate::context::Context;

/// Columns of a bar of the histogram.
const BAR: usize = 40;

/// Show what a model will see of a file of examples
#[derive(clap::Args)]
pub struct Data {
    /// Rows: JSON lines, JSON, CSV, Parquet, text, or a NumPy array of tokens
    file: PathBuf,
    /// The model that is to learn from it: a file, a folder, or hf:ORG/NAME
    #[arg(long, env = "WINDLASS_MODEL", value_name = "MODEL")]
    model: PathBuf,
    /// Tokens of an example at most [default: as trained, at most 4096]
    #[arg(long, env = "WINDLASS_CONTEXT", value_name = "N")]
    context: Option<usize>,
    /// Examples to show
    #[arg(short = 'n', long, env = "WINDLASS_EXAMPLES", value_name = "N", default_value_t = 3)]
    examples: usize,
    #[command(flatten)]
    rows: RowFlags,
}

/// How files of rows are read, for `train` too.
#[derive(clap::Args, Serialize, Clone, Default)]
pub struct RowFlags {
    /// text, completion, alpaca, chat or tokens [default: what the columns say, row by row]
    #[arg(long, env = "WINDLASS_FORMAT", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// What the file calls columns, such as prompt=question,completion=answer
    #[arg(long, env = "WINDLASS_COLUMNS", value_name = "NAME=COLUMN,..", value_delimiter = ',', value_parser = pair)]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "table")]
    columns: Vec<(String, String)>,
    /// A chat template: a Jinja file, or `chatml` [default: the model's own]
    #[arg(long, env = "WINDLASS_TEMPLATE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// What is learned: completion (answers, outputs, all of plain text) or all [default: completion]
    #[arg(long, env = "WINDLASS_TRAIN_ON", value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    train_on: Option<String>,
    /// What happens to longer rows: end or start (is cut off), drop, split, error [default: end]
    #[arg(long, env = "WINDLASS_TRUNCATION", value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<String>,
    /// Fill the context with several examples, which do not see each other
    #[arg(long, env = "WINDLASS_PACKING", value_parser = FalseyValueParser::new())]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    packing: bool,
    /// Read no more rows than these
    #[arg(long, env = "WINDLASS_MAX_ROWS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rows: Option<u64>,
    /// Pass over rows that cannot be used, and list them
    #[arg(long, env = "WINDLASS_SKIP_BAD_ROWS", value_parser = FalseyValueParser::new())]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_bad_rows: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, column) = text.split_once('=').ok_or("expected NAME=COLUMN")?;
    Ok((name.trim().into(), column.trim().into()))
}

fn table<S: serde::Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    pairs.iter().cloned().collect::<BTreeMap<_, _>>().serialize(serializer)
}

impl Data {
    pub fn run(self, context: &Context) -> Result<()> {
        let model = Model::open(&self.model, &context.limits)?;
        let settings = Settings {
            format: self.rows.format,
            columns: self.rows.columns.into_iter().collect(),
            template: self.rows.template,
            train_on: self.rows.train_on,
            truncation: self.rows.truncation,
            max_rows: self.rows.max_rows,
            skip_bad_rows: self.rows.skip_bad_rows,
        };
        let how = (self.context, self.rows.packing, self.examples);
        let view = view(&model, &self.file, &settings, how, &context.limits)?;
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        context.print(&view, |out| write(&view, coloured, out))
    }
}

fn write(view: &View, coloured: bool, out: &mut dyn Write) -> std::io::Result<()> {
    // What is learned stands out: green on a terminal, in brackets elsewhere.
    let (begin, end) = if coloured { ("\x1b[32m", "\x1b[0m") } else { ("⟦", "⟧") };
    for (at, example) in view.first.iter().enumerate() {
        let learned = example.labels.iter().skip(1).filter(|label| **label >= 0).count();
        writeln!(out, "example {}: {} tokens, {learned} learned", at + 1, example.tokens.len())?;
        for piece in &example.pieces {
            // A row must not speak to the terminal.
            let text: String = piece.text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
            if piece.learned { write!(out, "{begin}{text}{end}")? } else { write!(out, "{text}")? }
        }
        writeln!(out, "\n")?;
    }
    let (figures, rows) = (&view.figures, &view.figures.summary);
    let formats: Vec<String> = rows.formats.iter().map(|(name, count)| format!("{count} {name}")).collect();
    writeln!(out, "{}: {} rows ({}), {} skipped", rows.container, rows.rows, formats.join(", "), rows.skipped)?;
    writeln!(
        out,
        "{} examples of at most {} tokens: {} tokens, {} learned; {} were too long, {} left out",
        rows.examples, view.context, rows.tokens, rows.targets, rows.long, rows.dropped
    )?;
    if let Some(fill) = figures.packing {
        writeln!(out, "{} packs, {:.1} % full", figures.units, 100.0 * fill)?;
    }
    let most = view.lengths.iter().map(|(_, count)| *count).max().unwrap_or(1);
    for (length, count) in &view.lengths {
        writeln!(out, "{length:>9} tokens {count:>9} {}", "#".repeat((count * BAR).div_ceil(most)))?;
    }
    view.skipped_rows.iter().try_for_each(|row| writeln!(out, "skipped {row}"))
}

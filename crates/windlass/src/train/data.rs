//! What a model learns from: files become the tokens that it will see.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, json};
use windlass_tensor::Limits;
use windlass_text::Tokenizer;
use windlass_train::data::{self, Bad, ChatTemplate, Data, Examples, Reading, Summary, TrainOn, Truncation};

use super::Options;
use crate::{Code, Error, Model, Result};

/// ChatML, for models that have no template of their own: `--template chatml`.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// How files of rows are read: the same keys in a training file and as flags.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The shape of all rows, where their columns do not tell.
    pub format: Option<String>,
    /// Names that shapes know, and what the file calls them.
    pub columns: BTreeMap<String, String>,
    /// A Jinja file, or `chatml`.
    pub template: Option<String>,
    /// `completion` or `all`.
    pub train_on: Option<String>,
    /// `end`, `start`, `drop`, `split` or `error`.
    pub truncation: Option<String>,
    pub max_rows: Option<u64>,
    pub skip_bad_rows: bool,
}

/// What a model's files say about text.
pub struct Words {
    pub tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    end: Option<u32>,
    vocabulary: usize,
}

impl Words {
    /// Reads them; a tokenizer or a template that is missing is told where a row needs it.
    pub fn of(model: &Model, settings: &Settings, limits: &Limits) -> Result<Words> {
        let own = crate::chat::template(model, limits).ok();
        let own = own.map(|own| ChatTemplate { program: own.program, variables: own.variables });
        let template = match settings.template.as_deref() {
            None => own,
            Some("chatml") => Some(ChatTemplate { program: CHATML.into(), variables: Map::new() }),
            Some(path) => {
                let path = Path::new(path);
                let bytes = windlass_formats::files::read_small(path, limits.side_file_bytes)?;
                let program = String::from_utf8(bytes);
                let program = program.map_err(|_| Error::new(Code::Refused, "is not UTF-8").at(path))?;
                Some(ChatTemplate { program, variables: own.unwrap_or_default().variables })
            }
        };
        Ok(Words {
            tokenizer: model.tokenizer(limits).ok(),
            template,
            end: crate::generate::end_tokens(model, limits)?.first().copied(),
            vocabulary: model.identity()?.hyper.vocab(),
        })
    }
}

impl Settings {
    /// Reads the rows of `path`. Bad rows go to `skipped` where they are passed over; examples that do not fit into memory go
    /// to a file without a name in `folder`.
    pub fn read(
        &self,
        path: &Path,
        words: &Words,
        context: usize,
        folder: Option<&Path>,
        skipped: &mut dyn FnMut(&Path, &Bad) -> Result<()>,
        limits: &Limits,
    ) -> Result<(Examples, Summary)> {
        let columns: Vec<(String, String)> = self.columns.clone().into_iter().collect();
        let how = Reading {
            tokenizer: words.tokenizer.as_ref(),
            template: words.template.as_ref(),
            end: words.end,
            format: self.format.as_deref(),
            columns: &columns,
            train_on: choice("train-on", self.train_on.as_deref(), &TRAIN_ON)?,
            truncation: choice("truncation", self.truncation.as_deref(), &Truncation::NAMES)?,
            max_rows: self.max_rows,
            skip_bad_rows: self.skip_bad_rows,
            folder: folder.map(Path::to_path_buf),
            ..Reading::new(context, words.vocabulary, limits)
        };
        let mut failed = None;
        let mut told = |bad: &Bad| {
            skipped(path, bad).map_err(|error| {
                let message = error.to_string();
                failed = Some(error);
                windlass_train::Error::Data(message)
            })
        };
        data::read(path, &how, &mut told).map_err(|error| failed.take().unwrap_or_else(|| explained(error, path)))
    }
}

const TRAIN_ON: [(&str, TrainOn); 2] = [("completion", TrainOn::Completion), ("all", TrainOn::All)];

fn choice<T: Copy + Default>(flag: &str, given: Option<&str>, choices: &[(&str, T)]) -> Result<T> {
    let Some(given) = given else { return Ok(T::default()) };
    let found = choices.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("--{flag} {given:?} is none of {}", names.join(", ")))
    })
}

fn explained(error: windlass_train::Error, path: &Path) -> Error {
    let bad_row = matches!(error, windlass_train::Error::Row { .. });
    let error = Error::from(error);
    match error.code {
        Code::Refused if bad_row => error.at(path).help("--skip-bad-rows passes over such rows and lists them"),
        Code::Refused => error.at(path),
        _ => error,
    }
}

/// What is trained on and what the loss is measured on.
pub struct Prepared {
    pub data: Data,
    pub eval: Option<Examples>,
    pub figures: Figures,
}

/// Reads the files of a training run. Rows that are passed over are listed in `OUT/skipped.jsonl`.
pub fn prepare(model: &Model, options: &Options, context: usize, limits: &Limits) -> Result<Prepared> {
    if options.eval_data.is_some() && options.eval_split.is_some() {
        return Err(Error::usage("give --eval-data or --eval-split, not both"));
    }
    let begun = Instant::now();
    let settings = options.data_settings();
    let words = Words::of(model, &settings, limits)?;
    let mut list = Skipped { path: options.out.join("skipped.jsonl"), file: None };
    // Of an earlier run here; anybody else's file of that name stays, and is an error once a row is passed over.
    if options.overwrite || options.out.join("metrics.jsonl").exists() {
        list.forget()?;
    }
    let folder = Some(options.out.as_path());
    let mut read =
        |path: &Path| settings.read(path, &words, context, folder, &mut |file, bad| list.add(file, bad), limits);
    let (mut examples, summary) = read(&options.data)?;
    let mut eval = options.eval_data.as_deref().map(&mut read).transpose()?.map(|(examples, _)| examples);
    if let Some(part) = options.eval_split {
        let (kept, held) = examples.split(part, options.seed)?;
        (examples, eval) = (kept, Some(held));
    }
    let data = if options.packing { Data::packed(examples, context) } else { Data::plain(examples) };
    let figures = Figures::new(summary, &data, begun);
    Ok(Prepared { data, eval, figures })
}

/// The list of rows that were passed over; there is a file only where there is one.
struct Skipped {
    path: PathBuf,
    file: Option<File>,
}

impl Skipped {
    /// Removes the list of an earlier run.
    fn forget(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.path, error)),
            _ => Ok(()),
        }
    }

    fn add(&mut self, path: &Path, bad: &Bad) -> Result<()> {
        let failed = |error| Error::io(&self.path, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let folder = self.path.parent().unwrap_or(Path::new("."));
                std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
                self.file.insert(File::create_new(&self.path).map_err(failed)?)
            }
        };
        let (kind, number) = match bad.place {
            data::Place::Line(number) => ("line", number),
            data::Place::Row(number) => ("row", number),
        };
        let line = json!({"file": path, kind: number, "reason": bad.message});
        writeln!(file, "{line}").map_err(failed)
    }
}

/// What reading and packing came to, for people and for scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    #[serde(flatten)]
    pub summary: Summary,
    /// Steps are counted in these: examples, or packs of them.
    pub units: usize,
    /// How full packs are, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packing: Option<f64>,
    pub seconds: f64,
    pub tokens_per_second: f64,
}

impl Figures {
    /// The figures of data that were read since `begun`.
    pub fn new(summary: Summary, data: &Data, begun: Instant) -> Figures {
        let seconds = begun.elapsed().as_secs_f64();
        let tokens_per_second = summary.tokens as f64 / seconds.max(1e-9);
        Figures { summary, units: data.units(), packing: data.fill(), seconds, tokens_per_second }
    }
}

/// What a model will see of a file.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    #[serde(flatten)]
    pub figures: Figures,
    pub context: usize,
    /// How many examples have at most so many tokens, and more than the entry before.
    pub lengths: Vec<(usize, usize)>,
    /// The first examples.
    pub first: Vec<Shown>,
    /// Rows that were passed over; the first hundred.
    pub skipped_rows: Vec<String>,
    /// Changes where a token or a label does.
    pub fingerprint: String,
}

/// One example.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub tokens: Vec<u32>,
    /// -100 where a token is given and not learned.
    pub labels: Vec<i64>,
    /// Neighbours that are learned, or not learned, together.
    pub pieces: Vec<Piece>,
}

/// Tokens next to each other, as text.
#[derive(Clone, Debug, Serialize)]
pub struct Piece {
    pub text: String,
    pub learned: bool,
}

/// Reads a file as `train` would, and shows the first `count` examples.
pub fn view(
    model: &Model,
    path: &Path,
    settings: &Settings,
    (context, packing, count): (Option<usize>, bool, usize),
    limits: &Limits,
) -> Result<View> {
    let context = super::context(model, context)?;
    let words = Words::of(model, settings, limits)?;
    let begun = Instant::now();
    let mut skipped_rows = Vec::new();
    let mut told = |_: &Path, bad: &Bad| {
        if skipped_rows.len() < 100 {
            skipped_rows.push(format!("{}: {}", bad.place, bad.message));
        }
        Ok(())
    };
    let (examples, summary) = settings.read(path, &words, context, None, &mut told, limits)?;
    let data = if packing { Data::packed(examples, context) } else { Data::plain(examples) };
    let figures = Figures::new(summary, &data, begun);
    let examples = data.examples();
    let shown = (0..count.min(examples.len())).map(|index| Ok(show(examples.get(index)?, words.tokenizer.as_ref())));
    Ok(View {
        figures,
        context,
        lengths: histogram((0..examples.len()).map(|index| examples.length(index))),
        first: shown.collect::<Result<_>>()?,
        skipped_rows,
        fingerprint: format!("{:032x}", data.fingerprint()),
    })
}

fn show(example: data::Example, tokenizer: Option<&Tokenizer>) -> Shown {
    let learned: Vec<bool> = example.labels.iter().map(|label| *label != data::IGNORED).collect();
    let mut pieces = Vec::new();
    let mut start = 0;
    for run in learned.chunk_by(|a, b| a == b) {
        let tokens = &example.tokens[start..start + run.len()];
        start += run.len();
        let numbers = || tokens.iter().map(|token| format!("{token} ")).collect();
        let text = tokenizer.and_then(|tokenizer| tokenizer.decode(tokens, false).ok()).unwrap_or_else(numbers);
        pieces.push(Piece { text, learned: run[0] });
    }
    Shown { tokens: example.tokens, labels: example.labels, pieces }
}

/// Counts by powers of two.
fn histogram(lengths: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut counts = BTreeMap::new();
    lengths.for_each(|length| *counts.entry(length.next_power_of_two()).or_insert(0) += 1);
    counts.into_iter().collect()
}

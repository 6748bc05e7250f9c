//! `eval`: how well a model predicts a text, and how far it is from another.
//!
//! The convention is that of llama.cpp's `perplexity`: the text is cut into windows of `context` tokens that do not
//! overlap, what is left at the end is not looked at, the first token of each is the one that begins texts where the
//! tokenizer has one, and tokens of the second half of a window are scored, each from all before it in the window.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use windlass_models::Cache;
use windlass_models::{Evaluation, Scores};
use windlass_ops::Context;
use windlass_tensor::{DType, Element, Limits};

use crate::load::{Loaded, Run};
use crate::{Code, Error, Model, Result};

/// Tokens of a window, unless told otherwise.
pub const WINDOW: usize = 512;

/// How to evaluate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens of a window.
    pub context: usize,
    /// Most windows that are looked at.
    pub windows: usize,
    /// Element of the memory of keys and values.
    pub cache: Element,
    /// Largest mean divergence that is good enough.
    pub max_divergence: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { context: WINDOW, windows: usize::MAX, cache: DType::F32.into(), max_divergence: None }
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Tokens that were scored.
    pub tokens: usize,
    pub windows: usize,
    pub context: usize,
    pub perplexity: f64,
    /// Standard error.
    pub perplexity_error: f64,
    /// Of the model that it is compared with.
    pub base_perplexity: Option<f64>,
    /// Kullback-Leibler divergence from the model that it is compared with, in nats.
    pub mean_kld: Option<f64>,
    /// What 99 of 100 tokens do not exceed.
    pub p99_kld: Option<f64>,
    pub max_kld: Option<f64>,
    /// Share of tokens for which both take the same one for the likeliest.
    pub top1_agreement: Option<f64>,
    pub seconds: f64,
    /// Tokens that were read, scored or not.
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
}

/// Evaluates a model on a text, against `base` if there is one. `progress` is told of tokens done and in all, and says
/// whether to go on.
pub fn eval(
    cx: &Context,
    (model, loaded): (&Model, &Loaded),
    base: Option<(&Model, &Loaded)>,
    text: &Text,
    options: &Options,
    limits: &Limits,
    progress: &dyn Fn(u64, u64) -> bool,
) -> Result<Report> {
    let start = Instant::now();
    let windows = windows(model, base.map(|base| base.0), text, options, limits)?;
    let cache = |loaded: &Loaded| -> Result<Cache> {
        let logits = Evaluation::at_once(loaded.decoder.hyper().vocab()).min(options.context);
        let run = Run { context: options.context, element: options.cache.clone(), batch: options.context, logits };
        loaded.cache(&run)
    };
    let base = base.map(|(_, base)| Ok::<_, Error>((&base.decoder, cache(base)?))).transpose()?;
    let mut evaluation = Evaluation::new((&loaded.decoder, cache(loaded)?), base, options.context)?;
    let (total, mut done) = ((windows.len() * options.context) as u64, 0);
    for window in &windows {
        let on = evaluation.window(cx, window, &mut |read| {
            done += read as u64;
            progress(done, total)
        })?;
        if !on {
            return Err(Error::new(Code::Failed, "interrupted"));
        }
    }
    report(evaluation.scores(), windows.len(), options, start)
}

/// Whether the report is good enough: an error with exit code 5 that carries the report where it is not.
pub fn gate(report: &Report, options: &Options) -> Result<()> {
    match (report.mean_kld, options.max_divergence) {
        (Some(found), Some(most)) if found > most => {
            let message = format!("the mean KL divergence is {found:.6}, more than {most}");
            Err(Error::new(Code::Gate, message).help("choose a scheme with more bits, or an importance matrix"))
        }
        _ => Ok(()),
    }
}

/// A text, and the file that it comes from.
#[derive(Clone, Debug)]
pub struct Text {
    pub text: String,
    pub path: Box<Path>,
}

impl Text {
    /// Reads a text file.
    pub fn read(path: &Path, limits: &Limits) -> Result<Text> {
        let length = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if length > limits.string_bytes {
            let message = format!("{} has {length} bytes, a text has at most {}", path.display(), limits.string_bytes);
            return Err(Error::new(Code::Refused, message).at(path).help("cut it"));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let mut error = Error::new(Code::Refused, format!("{} is not text in UTF-8", path.display())).at(path);
            error.offset = Some(e.utf8_error().valid_up_to() as u64);
            error
        })?;
        Ok(Text { text, path: path.into() })
    }
}

/// The windows of a text. Both models must cut it into the same tokens.
pub(crate) fn windows(
    model: &Model,
    base: Option<&Model>,
    text: &Text,
    options: &Options,
    limits: &Limits,
) -> Result<Vec<Vec<u32>>> {
    let context = options.context;
    if context < 4 {
        return Err(
            Error::usage(format!("a window has at least 4 tokens, not {context}")).help("give a larger --context")
        );
    }
    let (tokens, first) = tokens(model, &text.text, limits)?;
    if let Some(base) = base {
        let (others, _) = self::tokens(base, &text.text, limits)?;
        if let Some(at) = tokens.iter().zip(&others).position(|(a, b)| a != b) {
            let message = format!("the two models cut the text into other tokens from token {at} on");
            return Err(Error::usage(message).help("compare models with the same tokenizer"));
        }
    }
    if tokens.len() < context {
        let (path, found) = (text.path.display(), tokens.len());
        let message = format!("{path} has {found} tokens, one window of {context} needs more");
        return Err(Error::usage(message).at(&text.path).help("give a longer text, or a smaller --context"));
    }
    let cut = tokens.chunks_exact(context).take(options.windows).map(|window| {
        let mut window = window.to_vec();
        if let (Some(first), Some(place)) = (first, window.first_mut()) {
            *place = first;
        }
        window
    });
    Ok(cut.collect())
}

/// The tokens of a text, and the one that begins texts.
fn tokens(model: &Model, text: &str, limits: &Limits) -> Result<(Vec<u32>, Option<u32>)> {
    let tokenizer = model.tokenizer(limits)?;
    let (bare, with) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let begin = with.first().copied().filter(|first| Some(first) != bare.first());
    Ok((tokenizer.encode(text, true)?, begin))
}

fn report(scores: &Scores, windows: usize, options: &Options, start: Instant) -> Result<Report> {
    let (perplexity, mean_kld) = (scores.perplexity(), scores.mean_divergence());
    if !perplexity.is_finite() || mean_kld.is_some_and(|kld| !kld.is_finite()) {
        let message =
            "the model gives something that is not a number: its weights are damaged, or its numbers overflow";
        return Err(Error::new(Code::Refused, message));
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report {
        tokens: scores.tokens,
        windows,
        context: options.context,
        perplexity,
        perplexity_error: scores.perplexity_error(),
        base_perplexity: scores.base_perplexity(),
        mean_kld,
        p99_kld: scores.divergence_at(0.99),
        max_kld: scores.divergence_at(1.0),
        top1_agreement: scores.agreement(),
        seconds,
        tokens_per_second: (windows * options.context) as f64 / seconds.max(1e-9),
        peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
    })
}

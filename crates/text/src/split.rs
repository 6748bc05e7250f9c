//! Pre-tokenization whose regular expressions cannot run away.
//!
//! The library drops what follows when an expression backtracks too much, which gives wrong tokens silently. Here that is an error,
//! and the time that one text may take is bounded: the expressions come from the model's files.

use std::time::{Duration, Instant};

use fancy_regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::pattern::Pattern;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{Offsets, PreTokenizedString, PreTokenizer};

use crate::Error;
use crate::error::bound;
use crate::gguf::pre::is_known;
use crate::json::{sequence, text};

/// Bytes of one expression; the longest in use has about 2,000.
const PATTERN_BYTES: u64 = 16 << 10;
/// Bytes of each compiled part of an expression.
const COMPILED_BYTES: usize = 4 << 20;
/// Steps back that one match may take: of expressions known to behave (a run of blanks takes one per blank), and of others in short and
/// in long texts. One step back may read the whole text.
const KNOWN_BACKTRACKS: usize = 1_000_000;
const SHORT_BACKTRACKS: usize = 100_000;
const LONG_BACKTRACKS: usize = 10_000;
/// Where short texts end, and the longest text that goes through an expression not known to behave.
const SHORT_BYTES: usize = 16 << 10;
const LONG_BYTES: usize = 16 << 20;
/// What one text may take at least, and how much text earns another such time.
const PATIENCE: Duration = Duration::from_secs(5);
const BYTES_PER_PATIENCE: usize = 256 << 10;

/// Compiles an expression from outside.
pub(crate) fn compile(pattern: &str, place: &str) -> Result<Regex, Error> {
    compile_with(pattern, place, SHORT_BACKTRACKS)
}

fn compile_with(pattern: &str, place: &str, backtracks: usize) -> Result<Regex, Error> {
    bound(|| place.to_owned(), pattern.len(), PATTERN_BYTES)?;
    RegexBuilder::new(pattern)
        .backtrack_limit(backtracks)
        .delegate_size_limit(COMPILED_BYTES)
        .build()
        .map_err(|e| Error::invalid(place, format!("the regular expression does not compile: {e}")))
}

/// One expression with the limits that suit it.
enum Expression {
    Known(Regex),
    Other { short: Regex, long: Regex },
}

impl Expression {
    fn new(pattern: &str) -> Result<Self, Error> {
        let compile = |backtracks| compile_with(pattern, "pre_tokenizer.pattern.Regex", backtracks);
        if is_known(pattern) {
            return Ok(Expression::Known(compile(KNOWN_BACKTRACKS)?));
        }
        Ok(Expression::Other { short: compile(SHORT_BACKTRACKS)?, long: compile(LONG_BACKTRACKS)? })
    }

    fn of(&self, bytes: usize) -> tokenizers::Result<&Regex> {
        match self {
            Expression::Known(regex) => Ok(regex),
            Expression::Other { short, .. } if bytes <= SHORT_BYTES => Ok(short),
            Expression::Other { long, .. } if bytes <= LONG_BYTES => Ok(long),
            Expression::Other { .. } => {
                let message = "this tokenizer's expression is not a known one, and long texts may take it for ever";
                Err(format!("{message}: a text of {bytes} bytes exceeds the limit of {LONG_BYTES}; cut the text")
                    .into())
            }
        }
    }
}

/// The steps of a tokenizer.json's `pre_tokenizer`, in order.
pub(crate) struct Steps(Vec<Step>);

enum Step {
    Split { regex: Box<Expression>, invert: bool, behavior: SplitDelimiterBehavior },
    Library(Box<PreTokenizerWrapper>),
}

impl Steps {
    /// Reads a validated `pre_tokenizer` component.
    pub(crate) fn new(component: &Value) -> Result<Self, Error> {
        sequence(component, "pretokenizers").into_iter().map(Step::new).collect::<Result<_, _>>().map(Steps)
    }
}

impl Step {
    fn new(component: &Value) -> Result<Self, Error> {
        let place = "pre_tokenizer";
        let refuse = |e: serde_json::Error| Error::invalid(place, e.to_string());
        if component["type"] != "Split" {
            return Ok(Step::Library(Box::new(PreTokenizerWrapper::deserialize(component).map_err(refuse)?)));
        }
        let pattern = &component["pattern"];
        let source = match pattern["Regex"].as_str() {
            Some(regex) => regex.to_owned(),
            None => fancy_regex::escape(text(pattern, "String", "pre_tokenizer.pattern")?).into_owned(),
        };
        Ok(Step::Split {
            regex: Box::new(Expression::new(&source)?),
            invert: component["invert"].as_bool().unwrap_or(false),
            behavior: SplitDelimiterBehavior::deserialize(&component["behavior"]).map_err(refuse)?,
        })
    }
}

impl PreTokenizer for Steps {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        self.0.iter().try_for_each(|step| match step {
            Step::Library(step) => step.pre_tokenize(text),
            Step::Split { regex, invert, behavior } => {
                let started = Instant::now();
                let mut bytes = 0;
                text.split(|_, piece| {
                    bytes += piece.get().len();
                    let patience = PATIENCE * (1 + u32::try_from(bytes / BYTES_PER_PATIENCE).unwrap_or(u32::MAX - 1));
                    piece.split(Bounded { regex, invert: *invert, deadline: started + patience }, *behavior)
                })
            }
        })
    }
}

struct Bounded<'a> {
    regex: &'a Expression,
    invert: bool,
    deadline: Instant,
}

impl Pattern for Bounded<'_> {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut at = 0;
        let mut pieces = Vec::new();
        for found in self.regex.of(inside.len())?.find_iter(inside) {
            let found = found.map_err(|e| format!("the pre-tokenizer's expression fails on this text: {e}"))?;
            if Instant::now() > self.deadline {
                return Err("the pre-tokenizer's expression takes too long on this text".into());
            }
            if found.start() > at {
                pieces.push(((at, found.start()), self.invert));
            }
            pieces.push(((found.start(), found.end()), !self.invert));
            at = found.end();
        }
        if at < inside.len() {
            pieces.push(((at, inside.len()), self.invert));
        }
        Ok(pieces)
    }
}

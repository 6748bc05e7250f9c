//! The quality gate of a conversion: how far what was written is from its source, measured on a text.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_ops::Context;
use windlass_runtime::scheduler::set_threads;

use super::Options;
use crate::eval::{self, Text, eval};
use crate::load::{self, load};
use crate::{Error, Model, Result};

/// Windows of the text that are looked at.
pub const WINDOWS: usize = 32;

/// What to measure with.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// A text like those that the model is for.
    pub text: Option<PathBuf>,
    /// Largest mean KL divergence from the source, in nats.
    pub max_divergence: Option<f64>,
    /// Tokens of a window; by default [`eval::WINDOW`].
    pub context: Option<usize>,
}

/// A gate that can be asked.
pub struct Gate {
    text: Text,
    how: eval::Options,
}

impl Gate {
    /// Reads the text and cuts it, so that nothing fails after the conversion that could have failed before. `None` if
    /// nothing is to be measured.
    pub fn prepare(model: &Model, target: &Path, bare: bool, options: &Options) -> Result<Option<Gate>> {
        let quality = &options.quality;
        if quality.max_divergence.is_some_and(|x| x.is_nan() || x < 0.0) {
            return Err(Error::usage("--max-kld takes a number from 0 up"));
        }
        let Some(path) = &quality.text else {
            return match quality.max_divergence {
                None => Ok(None),
                Some(_) => Err(Error::usage("--max-kld needs a text to measure on")
                    .help("give --calibrate FILE: some pages of what the model will be used for")),
            };
        };
        let identity = model.identity()?;
        if !identity.hyper.causal() {
            let message = format!(
                "{} models predict no next token, so that no divergence can be measured",
                identity.architecture.name()
            );
            return Err(Error::usage(message).help("leave out --max-kld and --calibrate"));
        }
        if bare {
            let message = format!("{} has no place for a configuration, so that it cannot be run", target.display());
            return Err(Error::usage(message).at(target).help("write a folder or a GGUF, or leave out --max-kld"));
        }
        let text = Text::read(path, &options.limits)?;
        let context = quality.context.unwrap_or(eval::WINDOW);
        let how =
            eval::Options { context, windows: WINDOWS, max_divergence: quality.max_divergence, ..Default::default() };
        eval::windows(model, None, &text, &how, &options.limits)?;
        Ok(Some(Gate { text, how }))
    }

    /// Compares what was written with its source. An error, with exit code 5, where it is too far away.
    pub fn ask(
        &self,
        source: &Model,
        written: &Path,
        options: &Options,
        stop: &AtomicBool,
        progress: &dyn Fn(u64, u64),
    ) -> Result<eval::Report> {
        crate::register_providers();
        // Where a team of threads is there already, it serves.
        drop(set_threads(options.threads));
        let written = Model::open(written, &options.limits)?;
        let show = |done, total| {
            progress(done, total);
            !stop.load(Ordering::Relaxed)
        };
        let how = load::Options { context: Some(self.how.context), ..load::Options::default() };
        let (loaded, base) = (load(&written, &how)?, load(source, &how)?);
        let (both, limits) = (((&written, &loaded), Some((source, &base))), &options.limits);
        let report = Context::here(|cx| eval(cx, both.0, both.1, &self.text, &self.how, limits, &show))?;
        eval::gate(&report, &self.how)?;
        Ok(report)
    }
}

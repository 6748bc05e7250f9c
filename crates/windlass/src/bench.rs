//! `bench`: tokens per second of a prompt and of decoding.

use std::time::Instant;

use serde::Serialize;
use windlass_models::Wanted;
use windlass_ops::Context;
use windlass_runtime::random::Philox;
use windlass_tensor::Element;

use crate::load::{Loaded, Run};
use crate::{Error, Result};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens to generate after it.
    pub generate: usize,
    /// How often; medians are reported.
    pub repeat: usize,
    /// Element of the cache: F32, F16 or packed.
    pub cache: Element,
}

/// Medians.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub prompt_tokens_per_second: f64,
    pub tokens_per_second: f64,
    pub load_seconds: f64,
    pub peak_memory_bytes: u64,
    pub threads: usize,
    /// Each repetition: prompt and decoding, tokens per second.
    pub runs: Vec<(f64, f64)>,
}

/// Runs a prompt of made-up tokens and decodes after it, `repeat` times. `seen` is told of each repetition.
pub fn bench(
    cx: &Context,
    loaded: &Loaded,
    options: &Options,
    load_seconds: f64,
    seen: &dyn Fn(usize, f64, f64),
) -> Result<Report> {
    if options.repeat == 0 || options.prompt + options.generate == 0 {
        return Err(Error::usage("--repeat, and --prompt or --generate, must be at least 1"));
    }
    let vocabulary = loaded.decoder.hyper().vocab();
    let mut random = Philox::new(1);
    let mut token = || random.below(vocabulary as u64) as u32;
    let prompt: Vec<u32> = (0..options.prompt).map(|_| token()).collect();
    let after: Vec<u32> = (0..options.generate).map(|_| token()).collect();
    let rate = |tokens: usize, start: Instant| tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
    let mut runs = Vec::new();
    for run in 0..options.repeat {
        let context = (prompt.len() + after.len()).max(1);
        let run_of = Run { context, element: options.cache.clone(), batch: prompt.len().max(1), logits: 1 };
        let mut cache = loaded.cache(&run_of)?;
        let start = Instant::now();
        if !prompt.is_empty() {
            loaded.decoder.forward(cx, &prompt, &mut cache, Wanted::Last)?;
        }
        let first = rate(prompt.len(), start);
        let start = Instant::now();
        for token in &after {
            loaded.decoder.forward(cx, &[*token], &mut cache, Wanted::Last)?;
        }
        let second = rate(after.len(), start);
        seen(run, first, second);
        runs.push((first, second));
    }
    Ok(Report {
        prompt_tokens: prompt.len(),
        generated_tokens: after.len(),
        prompt_tokens_per_second: median(runs.iter().map(|run| run.0)),
        tokens_per_second: median(runs.iter().map(|run| run.1)),
        load_seconds,
        peak_memory_bytes: windlass_runtime::system::peak_memory().unwrap_or(0),
        threads: cx.session().threads(),
        runs,
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}

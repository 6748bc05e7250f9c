use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::builder::FalseyValueParser;
use windlass::ops::Recorder;
use windlass::{Model, Result};

use crate::context::Context;
use crate::running::Running;

/// Measure tokens per second of a prompt and of decoding
#[derive(clap::Args)]
pub struct Bench {
    /// A file, a folder, or hf:ORG/NAME; it needs no tokenizer
    model: String,
    /// Tokens of the prompt
    #[arg(long, env = "WINDLASS_PROMPT_TOKENS", value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate after it
    #[arg(long, env = "WINDLASS_GENERATE", value_name = "N", default_value_t = 128)]
    generate: usize,
    /// How often to measure; medians are reported
    #[arg(long, env = "WINDLASS_REPEAT", value_name = "N", default_value_t = 5)]
    repeat: usize,
    #[command(flatten)]
    running: Running,
    /// Show which ops took how long
    #[arg(long, env = "WINDLASS_OPS", value_parser = FalseyValueParser::new())]
    ops: bool,
}

impl Bench {
    pub fn run(self, context: &Context) -> Result<()> {
        let start = Instant::now();
        let model = Model::open(&self.model, &context.limits)?;
        let loaded = self.running.load(context, &model, Some(self.prompt + self.generate))?;
        let seconds = start.elapsed().as_secs_f64();
        let cache = self.running.cache("f16")?;
        let options =
            windlass::bench::Options { prompt: self.prompt, generate: self.generate, repeat: self.repeat, cache };
        let seen = |run: usize, prompt: f64, decode: f64| {
            if !context.globals.json {
                context.say(&format!("{:2}: prompt {prompt:.1}/s, decode {decode:.1}/s", run + 1));
            }
        };
        let recorder = Recorder::new();
        let result = context.compute(self.running.provider.as_deref(), |cx| {
            if !self.ops {
                return windlass::bench::bench(cx, &loaded, &options, seconds, &seen);
            }
            let cx = windlass::ops::Context::new(cx.session()).with_recorder(&recorder);
            windlass::bench::bench(&cx, &loaded, &options, seconds, &seen)
        })??;
        let by_op = by_op(&recorder);
        context.print(&result, |out| {
            writeln!(out, "prompt  {:8.1} tokens/s ({} tokens)", result.prompt_tokens_per_second, result.prompt_tokens)?;
            writeln!(out, "decode  {:8.1} tokens/s ({} tokens)", result.tokens_per_second, result.generated_tokens)?;
            writeln!(
                out,
                "{} threads, loaded in {:.3} s, {:.0} MiB of memory at most",
                result.threads,
                result.load_seconds,
                result.peak_memory_bytes as f64 / f64::from(1 << 20)
            )?;
            by_op.iter().try_for_each(|((op, provider, dtype), (count, time))| {
                writeln!(out, "{op:14} {provider:10} {dtype:8} {count:8} calls {:10.3} ms", time.as_secs_f64() * 1e3)
            })
        })
    }
}

type Key = (&'static str, &'static str, String);

fn by_op(recorder: &Recorder) -> Vec<(Key, (usize, Duration))> {
    let mut sums: BTreeMap<Key, (usize, Duration)> = BTreeMap::new();
    for receipt in recorder.take() {
        let sum = sums.entry((receipt.op, receipt.provider, receipt.dtype)).or_default();
        *sum = (sum.0 + 1, sum.1 + receipt.elapsed);
    }
    let mut all: Vec<_> = sums.into_iter().collect();
    all.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
    all
}

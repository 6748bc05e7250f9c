use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::builder::FalseyValueParser;
use windlass::load::{Run, Synthetic};
use windlass::ops::{self, Recorder};
use windlass::plan::{Plan, plan, plan_synthetic};
use windlass::{Error, Model, Result};

use crate::context::Context;
use crate::running::Running;

/// Measure tokens per second of a prompt and of decoding, or how long an op takes
///
/// `bench MODEL` measures a model, `bench --synthetic qwen3-8b --scheme q4_k` a shape with weights made up in memory, and
/// `bench linear` each provider's kernel for an op.
#[derive(clap::Args)]
pub struct Bench {
    /// A file, a folder, or hf:ORG/NAME (it needs no tokenizer); or the name of an op
    #[arg(required_unless_present = "synthetic", conflicts_with = "synthetic")]
    model: Option<String>,
    /// A shape by name, or a config.json; its weights are made up, all in --scheme [default: bf16]
    #[arg(long, env = "WINDLASS_SYNTHETIC", value_name = "SHAPE")]
    synthetic: Option<String>,
    /// Only this type, of an op
    #[arg(long, env = "WINDLASS_DTYPE", value_name = "TYPE")]
    dtype: Option<String>,
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
    /// What it would take.
    pub fn plan(self, context: &Context) -> Result<Plan> {
        let options = self.running.options(context, Some(self.prompt + self.generate));
        let run = Run {
            context: (self.prompt + self.generate).max(1),
            element: self.running.cache("f16")?,
            batch: self.prompt.max(1),
            logits: 1,
        };
        match (self.made(context)?, &self.model) {
            (Some(made), _) => plan_synthetic(&made, &options, &run),
            (None, Some(model)) => plan(&Model::open(model, &context.limits)?, &options, &run, 0),
            (None, None) => Err(Error::usage("a model is missing")),
        }
    }

    fn made(&self, context: &Context) -> Result<Option<Synthetic>> {
        let scheme = self.running.scheme.as_deref().unwrap_or("bf16");
        self.synthetic.as_ref().map(|name| Synthetic::new(name, scheme, &context.limits)).transpose()
    }

    pub fn run(self, context: &Context) -> Result<()> {
        let op = self.model.as_ref().filter(|name| !Path::new(name).exists()).and_then(|name| ops::op(name).ok());
        if let Some(op) = op {
            return self.measure(context, op);
        }
        let start = Instant::now();
        let loaded = match (self.made(context)?, &self.model) {
            (Some(made), _) => made.load(&self.running.options(context, Some(self.prompt + self.generate)))?,
            (None, Some(model)) => {
                let model = Model::open(model, &context.limits)?;
                self.running.load(context, &model, Some(self.prompt + self.generate))?
            }
            (None, None) => return Err(Error::usage("a model is missing")),
        };
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

impl Bench {
    /// Measures an op: each provider, with each family of arguments.
    fn measure(&self, context: &Context, op: &'static ops::Op) -> Result<()> {
        let only = self.dtype.as_deref().map(str::to_lowercase);
        let all = context.compute(None, |cx| ops::route::measure(cx, "cpu", Some(op), &|_, _| true))??;
        let rows: Vec<_> = all.into_iter().filter(|m| only.as_ref().is_none_or(|dtype| m.dtype == *dtype)).collect();
        if rows.is_empty() {
            let error = Error::usage(format!("{} has one kernel, the reference's, or none for this type", op.name));
            return Err(error.help("`windlass routes` lists ops and providers"));
        }
        context.print(&rows, |out| {
            for m in &rows {
                let times = m.seconds.iter().map(|(name, seconds)| format!("{name} {:10.2} us", seconds * 1e6));
                let times = times.collect::<Vec<_>>().join("  ");
                writeln!(out, "{:14} {:10} {:>9} values  {times}", m.op, m.dtype, m.size)?;
            }
            Ok(())
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

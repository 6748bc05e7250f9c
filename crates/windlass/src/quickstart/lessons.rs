//! The second half of the tour: a small model learns a made-up language, is quantized, learns more while it is quantized, and
//! what it learned is merged into it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use windlass_catalog::{Convention, Part, Piece, Role};
use windlass_generate::Sampling;
use windlass_models::{Decoder, Trainable};
use windlass_nn::Parameters;
use windlass_nn::optim::optimizer;
use windlass_ops::Context;
use windlass_runtime::scheduler::set_threads;
use windlass_tensor::{DType, Tensor, TypedTensor};
use windlass_train::Trainer;
use windlass_train::data::{Collector, Data, Example};

use super::model::Named;
use super::{Step, model, story};
use crate::convert::{Options, Watch};
use crate::load::{self, load};
use crate::merge::{Adapted, Merge};
use crate::{Code, Error, Model, Result, generate, train};

/// Names of what the lessons leave.
pub const NAMES: [&str; 6] = [
    "tiny-trained",
    "tiny-trained-q4_k_m.gguf",
    "tiny-lesson",
    "tiny-merged.gguf",
    "tiny-story.txt",
    "tiny-lesson.jsonl",
];

/// Tokens of its tokenizer, beside the special ones.
const VOCABULARY: usize = 480;
/// Steps of the first lesson, and examples of each.
const STEPS: u64 = 220;
const BATCH: usize = 8;
/// Texts of an example, and steps of the second lesson.
const TOGETHER: usize = 4;
const LESSON: u64 = 120;

/// Runs all lessons; `add` sees each step as it ends.
pub fn run(folder: &Path, options: &Options, watch: &Watch, add: &mut dyn FnMut(Step)) -> Result<()> {
    crate::register_providers();
    // Where a team of threads is there already, it serves.
    drop(set_threads(options.threads));
    let lessons = Lessons { folder, options, watch };
    Context::here(|cx| lessons.run(cx, add))
}

struct Lessons<'a> {
    folder: &'a Path,
    options: &'a Options,
    watch: &'a Watch<'a>,
}

impl Lessons<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, cx: &Context, add: &mut dyn FnMut(Step)) -> Result<()> {
        let [trained, quantized, lesson, merged, corpus, rows] = NAMES.map(|name| self.path(name));
        for old in [&trained, &lesson] {
            if old.exists() {
                std::fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
            }
        }
        add(self.learn(cx, &trained, &corpus)?);
        add(super::convert("quantize it to 4 bits", &trained, &quantized, Some("q4_k_m"), self.options, self.watch)?);
        add(self.ask(cx, "what it says, quantized", &quantized, &story::KNOWN, true)?);
        add(self.ask(cx, "about animals it never met", &quantized, &story::NEW, false)?);
        add(self.fine_tune(cx, &quantized, &lesson, &rows)?);
        add(self.merge(&quantized, &lesson.join("adapter"), &merged)?);
        add(self.ask(cx, "about the same animals, merged", &merged, &story::NEW, true)?);
        add(self.ask(cx, "and about the first ones", &merged, &story::KNOWN, true)?);
        Ok(())
    }

    /// A model from nothing: all of its weights are trained.
    fn learn(&self, cx: &Context, folder: &Path, corpus: &Path) -> Result<Step> {
        let start = Instant::now();
        let texts = story::texts(&story::KNOWN, 4000, 1);
        std::fs::write(corpus, texts.join("\n")).map_err(|e| Error::io(corpus, e))?;
        let config = config();
        let weights = model::small(&config)?;
        model::write(folder, &config, &texts.join("\n"), VOCABULARY, &weights)?;
        let made = Model::open(folder, &self.options.limits)?;
        let tokenizer = made.tokenizer(&self.options.limits)?;
        let end = tokenizer.token("<|im_end|>").unwrap_or_default();
        let mut examples = Collector::new(64 << 20, None);
        for texts in texts.chunks(TOGETHER) {
            let mut tokens = Vec::new();
            for text in texts {
                tokens.extend(tokenizer.encode(text, false).map_err(Error::from)?);
                tokens.push(end);
            }
            let labels = tokens.iter().map(|token| i64::from(*token)).collect();
            examples.push(&Example { tokens, labels })?;
        }
        let data = Data::plain(examples.finish()?);
        let loaded = load(&made, &load::Options { context: Some(128), ..load::Options::default() })?;
        let (trainable, parameters) = whole(loaded.decoder, weights)?;
        let how = windlass_train::Options {
            batch_size: BATCH,
            accumulate: 1,
            max_grad_norm: Some(1.0),
            max_grad_value: None,
            seed: 1,
            shuffle: true,
            checkpoint: false,
            skip_nan: false,
        };
        let adam = optimizer("adamw", &BTreeMap::new()).map_err(windlass_train::Error::from)?;
        let mut trainer = Trainer::new(trainable, parameters, adam, data.units(), how)?;
        let (mut first, mut last, mut tokens) = (f64::NAN, f64::NAN, 0);
        for step in 0..STEPS {
            let rate = 3e-3 * ((step + 1) as f64 / 20.0).min(1.0) * (1.0 - step as f64 / STEPS as f64);
            let Some(report) = trainer.step(cx, &data, rate, self.watch.stop)? else {
                return Err(Error::new(Code::Failed, "interrupted"));
            };
            (first, last) = (if step == 0 { report.loss } else { first }, report.loss);
            tokens += report.tokens;
        }
        let mut tensors = Vec::new();
        for parameter in trainer.parameters.iter() {
            let values = TypedTensor::<f32>::new(parameter.tensor.clone())?.to_vec()?;
            tensors.push((parameter.name.clone(), parameter.tensor.shape().to_vec(), values));
        }
        let count = trainer.parameters.values();
        // Its file is open no more.
        drop(trainer);
        std::fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        model::write(folder, &config, &texts.join("\n"), VOCABULARY, &tensors)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Step {
            name: format!("train {:.1} million weights from nothing", count as f64 / 1e6),
            seconds,
            ok: last < first / 5.0,
            loss: Some((first, last)),
            tokens_per_second: Some(tokens as f64 / seconds),
            ..Step::default()
        })
    }

    fn fine_tune(&self, cx: &Context, base: &Path, out: &Path, rows: &Path) -> Result<Step> {
        let start = Instant::now();
        // Some of what it knows, so that it is not forgotten.
        let mut texts = story::texts(&story::NEW, 300, 2);
        texts.extend(story::texts(&story::KNOWN, 300, 3));
        let lines: Vec<String> = texts.iter().map(|text| json!({ "text": text }).to_string()).collect();
        std::fs::write(rows, lines.join("\n")).map_err(|e| Error::io(rows, e))?;
        let options = train::Options {
            model: base.display().to_string(),
            data: rows.into(),
            out: out.into(),
            method: "qlora".into(),
            overwrite: true,
            steps: Some(LESSON),
            batch_size: 16,
            context: Some(64),
            learning_rate: 5e-3,
            rank: 8,
            ..train::Options::default()
        };
        let first = std::cell::Cell::new(f64::NAN);
        let watch = |report: &windlass_train::StepReport, _: u64| {
            if report.step == 1 {
                first.set(report.loss);
            }
        };
        let observer =
            train::Observer { threads: self.options.threads, step: &watch, ..train::Observer::new(self.watch.stop) };
        let report = train::train(cx, &options, &self.options.limits, &observer)?;
        let command = format!(
            "windlass train --model {} --data {} --out {} --method qlora --steps {LESSON} --batch-size 16 --context 64 \
             --learning-rate 5e-3 --rank 8",
            base.display(),
            rows.display(),
            out.display()
        );
        Ok(Step {
            name: "teach the quantized model more".into(),
            command,
            seconds: start.elapsed().as_secs_f64(),
            ok: report.final_loss < first.get(),
            loss: Some((first.get(), report.final_loss)),
            ..Step::default()
        })
    }

    fn merge(&self, base: &Path, adapter: &Path, out: &Path) -> Result<Step> {
        let options = Options { overwrite: true, ..self.options.clone() };
        let adapters = [Adapted { path: adapter.into(), scale: 1.0 }];
        let report = Merge::adapters(base, &adapters, out, options)?.run(self.watch)?;
        Ok(Step {
            name: "merge what it learned".into(),
            command: format!("windlass merge {} {} --adapter {}", base.display(), out.display(), adapter.display()),
            seconds: report.conversion.seconds,
            ok: !report.merged.is_empty(),
            bytes: Some(report.conversion.bytes_out),
            max_relative_error: Some(report.conversion.max_relative_error),
            ..Step::default()
        })
    }

    /// Asks about animals, and counts the answers that are right to the letter.
    fn ask(&self, cx: &Context, name: &str, path: &Path, animals: &[[&'static str; 4]], knows: bool) -> Result<Step> {
        let start = Instant::now();
        let model = Model::open(path, &self.options.limits)?;
        let loaded = load(&model, &load::Options { context: Some(128), ..load::Options::default() })?;
        let (mut right, mut said) = (0, String::new());
        for animal in animals {
            let (prompt, wanted) = story::question(*animal);
            let how = generate::Options {
                prompt: prompt.clone(),
                tokens: 40,
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                stop: Vec::new(),
                cache: DType::F32.into(),
            };
            let answer = generate::generate(cx, &model, &loaded, &how, &self.options.limits, &mut |_| true)?;
            right += usize::from(answer.text.trim_end() == wanted);
            if said.is_empty() {
                said = prompt + answer.text.trim_end();
            }
        }
        let (prompt, _) = story::question(animals[0]);
        Ok(Step {
            name: name.into(),
            command: format!("windlass generate {} -p {prompt:?} --temperature 0", path.display()),
            seconds: start.elapsed().as_secs_f64(),
            ok: !knows || right * 3 >= animals.len() * 2,
            right: Some((right, animals.len())),
            text: Some(said),
            ..Step::default()
        })
    }
}

fn config() -> serde_json::Value {
    let mut config = model::config();
    for (key, value) in [
        ("hidden_size", 256),
        ("intermediate_size", 512),
        ("num_hidden_layers", 2),
        ("vocab_size", 512),
        ("max_position_embeddings", 256),
    ] {
        config[key] = value.into();
    }
    config["rope_theta"] = 10_000.0.into();
    config
}

/// All weights of a decoder as parameters, by the names that transformers gives them.
fn whole(decoder: Decoder, weights: Vec<Named>) -> Result<(Trainable, Parameters)> {
    let (mut parameters, mut places) = (Parameters::new(), HashMap::<(Role, Part, Option<usize>), usize>::new());
    let pieces = decoder.architecture().pieces(decoder.hyper())?;
    for (name, shape, values) in weights {
        let is_at = |piece: &&Piece| piece.places(Convention::Hf).first().is_some_and(|place| place.tensor == name);
        let Some(piece) = pieces.iter().find(is_at) else { continue };
        let index = parameters.add(name, Tensor::from_slice(&values, shape)?)?;
        places.insert((piece.role, piece.part, piece.layer), index);
    }
    Ok((Trainable::new(decoder, HashMap::new(), places), parameters))
}

//! Models made into one: blocks of rows of all of them are decoded side by side, whatever their containers and schemes.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use windlass_edit::models::{Blend, Place, Survey, Whole};
use windlass_formats::{Problem, Source};
use windlass_runtime::memory::{Buffer, Pool};
use windlass_runtime::pipeline;
use windlass_tensor::Limits;

use super::rules::Rules;
use crate::convert::{self, Blocks, Edit, Origin, Output, Plain, Step};
use crate::rows::rows_and_columns;
use crate::{Code, Error, Model, Result};

/// Models that are merged into the one that a conversion reads.
pub struct Models {
    others: Vec<Other>,
    /// What is done to each output; `None` where it stays as it is.
    tensors: Vec<Option<Tensor>>,
    warnings: Vec<String>,
}

/// A model beside the first, its tensors named and ordered as the target's.
struct Other {
    model: Model,
    outputs: Vec<Output>,
    /// For each output of the target, the one of the same name.
    places: Vec<Option<usize>>,
}

struct Tensor {
    blend: Blend,
    /// Its name in GGUF, which is the same whatever the container.
    name: String,
    columns: usize,
    values: u64,
    /// Most bytes of a value as it is stored.
    widest: u64,
    whole: OnceLock<Whole>,
}

impl Models {
    /// Finds every tensor of `base` in the other models.
    ///
    /// # Errors
    /// If a model has another architecture, another vocabulary, or a tensor of another shape.
    pub fn find(models: Vec<Model>, base: &Plain, blend: &Blend, rules: &Rules, limits: &Limits) -> Result<Models> {
        let mut warnings = Vec::new();
        let mut others = Vec::with_capacity(models.len());
        for model in models {
            check_alike(base.model, &model, limits, &mut warnings)?;
            others.push(Other::find(model, base)?);
        }
        let names: Vec<&str> = base.outputs.iter().map(|o| o.name.as_str()).collect();
        warnings.extend(rules.idle(&names).into_iter().map(|p| format!("the rule for {p:?} matches no tensor")));
        let tensor = |(at, output): (usize, &Output)| -> Result<Option<Tensor>> {
            if !is_float(&base.model.source, output) {
                return Ok(None);
            }
            let Some(blend) = rules.apply(&output.name, blend)? else { return Ok(None) };
            let widest = others.iter().filter_map(|o| Some(widest(&o.model.source, &o.outputs[o.places[at]?])));
            Ok(Some(Tensor {
                blend,
                name: output.gguf_name.clone(),
                columns: rows_and_columns(&output.shape).1,
                values: output.shape.iter().product::<usize>() as u64,
                widest: widest.max().unwrap_or(4),
                whole: OnceLock::new(),
            }))
        };
        let tensors = base.outputs.iter().enumerate().map(tensor).collect::<Result<Vec<_>>>()?;
        Ok(Models { others, tensors, warnings })
    }

    /// The values of a step in every other model.
    fn read(&self, step: &Step, count: usize, pool: &Pool) -> Result<Vec<Buffer>> {
        let one = |other: &Other| {
            let mut values = pool.take("a block of another model", count * 4)?;
            let origin = Origin { source: &other.model.source, pool };
            if let Some(at) = other.places[step.piece] {
                origin.values(&other.outputs[at], step, values.as_f32_mut())?;
            }
            Ok(values)
        };
        self.others.iter().map(one).collect()
    }

    fn tensor(&self, step: &Step) -> Option<&Tensor> {
        self.tensors.get(step.piece)?.as_ref()
    }
}

impl Other {
    fn find(model: Model, base: &Plain) -> Result<Other> {
        let outputs = convert::outputs(&model, base.container)?;
        let index: BTreeMap<&str, usize> = outputs.iter().enumerate().map(|(i, o)| (o.name.as_str(), i)).collect();
        let mut places = Vec::with_capacity(base.outputs.len());
        for output in base.outputs {
            let found = index.get(output.name.as_str()).copied();
            if is_float(&base.model.source, output) {
                check_tensor(&model, base.model, output, found.map(|i| &outputs[i]))?;
            }
            places.push(found);
        }
        let known: std::collections::BTreeSet<&str> = base.outputs.iter().map(|o| o.name.as_str()).collect();
        if let Some(more) = outputs.iter().find(|o| !known.contains(o.name.as_str()) && is_float(&model.source, o)) {
            let message = format!("{} has no such tensor, so it would be lost", base.model.source.path().display());
            let problem = Problem::new("unknown-tensor", message).tensor(&more.name);
            return Err(Error::refused(model.source.path(), problem).help("only models of one shape can be merged"));
        }
        Ok(Other { outputs, places, model })
    }
}

/// Holds a tensor of another model against the first's.
fn check_tensor(model: &Model, base: &Model, wanted: &Output, found: Option<&Output>) -> Result<()> {
    let refuse = |code, message: String| {
        Err(Error::refused(model.source.path(), Problem::new(code, message).tensor(&wanted.name)))
    };
    let path = base.source.path().display();
    let Some(found) = found else {
        let help =
            "only models of one shape can be merged; one that uses its embedding for its output has no tensor for that";
        return refuse("missing-tensor", format!("is missing, and {path} has it")).map_err(|e: Error| e.help(help));
    };
    if found.shape == wanted.shape {
        return Ok(());
    }
    if matches!(wanted.gguf_name.as_str(), "token_embd.weight" | "output.weight") {
        let rows = |output: &Output| output.shape.first().copied().unwrap_or(0);
        let message = format!("has a vocabulary of {} tokens, and {path} one of {}", rows(found), rows(wanted));
        let help = "models with different vocabularies cannot be merged: resize one to the tokens of the other first, or merge \
            models that were trained from one base";
        return refuse("wrong-vocabulary", message).map_err(|e: Error| e.help(help));
    }
    let message = format!("expected shape {:?} as in {path}, found {:?}", wanted.shape, found.shape);
    refuse("wrong-shape", message).map_err(|e: Error| e.help("only models of one shape can be merged"))
}

/// Refuses a model of another architecture or with other tokens; warns of what else differs.
fn check_alike(base: &Model, other: &Model, limits: &Limits, warnings: &mut Vec<String>) -> Result<()> {
    let path = other.source.path();
    if other.adapter.is_some() {
        let message = format!("{} is an adapter, and not a model", path.display());
        return Err(Error::usage(message).at(path).help("adapters are named by --adapter, without --method"));
    }
    if let (Ok(first), Ok(second)) = (&base.identity, &other.identity) {
        let [a, b] = [first, second].map(|i| i.architecture.name());
        if a != b {
            let message = format!("{} is a {b}, and {} is a {a}", path.display(), base.source.path().display());
            return Err(Error::new(Code::Refused, message)
                .at(path)
                .help("only models of one architecture can be merged"));
        }
        let [mine, others] = [first, second].map(|i| i.architecture.to_hf_config(&i.hyper));
        let all = mine.as_object().into_iter().flatten();
        let differ =
            all.filter_map(|(key, value)| Some((key, value, others.get(key).filter(|other| *other != value)?)));
        // Sizes are told by the tensors.
        let differ = differ.filter(|(key, _, _)| !matches!(key.as_str(), "vocab_size" | "torch_dtype" | "dtype"));
        warnings.extend(differ.map(|(key, a, b)| {
            format!("{key} is {a} in the first model and {b} in {}: kept as in the first", path.display())
        }));
    }
    let (Ok(first), Ok(second)) = (base.tokenizer(limits), other.tokenizer(limits)) else {
        warnings.push(format!("whether {} has the same tokens is not known: a tokenizer is missing", path.display()));
        return Ok(());
    };
    let [mine, others] = [&first, &second].map(|t| t.vocabulary_size());
    let differ = |token: &u32| first.piece(*token) != second.piece(*token);
    let shared = u32::try_from(mine.min(others)).unwrap_or(u32::MAX);
    if let Some(token) = (0..shared).find(differ) {
        let count = (0..shared).filter(differ).count();
        let text = |tokenizer: &windlass_text::Tokenizer| tokenizer.piece(token).unwrap_or_default();
        let message = format!(
            "{count} of {shared} tokens differ from those of {}: token {token} is {:?} here and {:?} there",
            base.source.path().display(),
            text(&second),
            text(&first)
        );
        let problem = Problem::new("wrong-vocabulary", message);
        return Err(
            Error::refused(path, problem).help("merge models that were trained from one base, with its tokenizer")
        );
    }
    if mine != others {
        warnings.push(format!("{} has {others} tokens, the first model {mine}: its tokenizer is kept", path.display()));
    }
    Ok(())
}

fn is_float(source: &Source, output: &Output) -> bool {
    let entries = output.content.entries();
    let float = |i: &usize| source.tensors()[*i].element().dtype().is_none_or(|dtype| dtype.is_float());
    !entries.is_empty() && entries.iter().all(float)
}

fn widest(source: &Source, output: &Output) -> u64 {
    let entries = output.content.entries().into_iter().map(|i| &source.tensors()[i]);
    entries.map(|e| e.bytes().div_ceil(e.values().max(1))).max().unwrap_or(4)
}

impl Edit for Models {
    fn touches(&self, step: &Step) -> bool {
        self.tensor(step).is_some()
    }

    fn memory(&self, step: &Step) -> u64 {
        let Some(tensor) = self.tensor(step) else { return 0 };
        let values = (step.rows * tensor.columns) as u64;
        let models = self.others.len() as u64;
        // Every model's floats, what the values were, and one model's bytes, reordered and decoded.
        2 * values * (4 * (models + 1) + 2 * tensor.widest + 8) + 2 * tensor.blend.survey_bytes()
    }

    fn prepare(&self, blocks: &Blocks, options: &pipeline::Options) -> Result<()> {
        for (piece, tensor) in self.tensors.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?))) {
            let steps: Vec<&Step> = blocks.steps().iter().filter(|step| step.piece == piece).collect();
            let mut whole = Whole::default();
            for pass in 0..tensor.blend.passes() {
                let found = steps.iter().map(|_| Mutex::new(Survey::default())).collect();
                let work = Looking {
                    models: self,
                    blocks,
                    tensor,
                    pass,
                    whole: &whole,
                    steps: &steps,
                    found,
                    sum: Mutex::default(),
                };
                pipeline::run(&work, &pipeline::Options { progress: &|_, _| (), ..*options })?;
                let mut all = work.sum.into_inner().unwrap_or_else(PoisonError::into_inner);
                // Sums of floats are added in order, whatever the threads.
                let parts =
                    work.found.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner));
                parts.for_each(|part| all.add(&part));
                tensor.blend.settle(pass, &mut whole, &all, tensor.values);
            }
            let _ = tensor.whole.set(whole);
        }
        Ok(())
    }

    fn apply(&self, step: &Step, values: &mut [f32], pool: &Pool) -> Result<f64> {
        let Some(tensor) = self.tensor(step) else { return Ok(0.0) };
        let mut others = self.read(step, values.len(), pool)?;
        let mut before = pool.take("a block before it is merged", values.len() * 4)?;
        before.as_f32_mut().copy_from_slice(values);
        let others: Vec<&[f32]> = others.iter_mut().map(|other| &*other.as_f32_mut()).collect();
        let place = Place { tensor: &tensor.name, first: (step.first * tensor.columns) as u64 };
        let nothing = Whole::default();
        tensor.blend.apply(place, tensor.whole.get().unwrap_or(&nothing), values, &others);
        let pairs = values.iter().zip(before.as_f32_mut());
        Ok(pairs.map(|(new, old)| f64::from(*new - *old).powi(2)).sum())
    }

    fn sources(&self) -> Vec<&Source> {
        self.others.iter().map(|other| &other.model.source).collect()
    }

    fn fingerprint(&self) -> String {
        let blends = self.tensors.iter().map(|t| format!("{:?}", t.as_ref().map(|t| &t.blend)));
        let paths = self.others.iter().map(|other| other.model.source.path().display().to_string());
        paths.chain(blends).collect::<Vec<_>>().join("\n")
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// One pass over one tensor.
struct Looking<'a, 'b> {
    models: &'a Models,
    blocks: &'a Blocks<'b>,
    tensor: &'a Tensor,
    pass: usize,
    whole: &'a Whole,
    steps: &'a [&'a Step],
    /// What was found in each step, where the order of adding up matters.
    found: Vec<Mutex<Survey>>,
    /// The sum of counts.
    sum: Mutex<Survey>,
}

impl pipeline::Work for Looking<'_, '_> {
    type Error = Error;

    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn bytes(&self, index: usize) -> u64 {
        (self.steps[index].rows * self.tensor.columns) as u64
    }

    fn step(&self, index: usize) -> Result<()> {
        let (step, pool) = (self.steps[index], self.blocks.pool());
        let count = step.rows * self.tensor.columns;
        let mut base = pool.take("a block of floats", count * 4)?;
        self.blocks.plain_values(step, base.as_f32_mut())?;
        let mut others = self.models.read(step, count, pool)?;
        let others: Vec<&[f32]> = others.iter_mut().map(|other| &*other.as_f32_mut()).collect();
        let survey = self.tensor.blend.survey(self.pass, self.whole, base.as_f32_mut(), &others);
        let slot = if survey.is_ordered() { &self.found[index] } else { &self.sum };
        slot.lock().unwrap_or_else(PoisonError::into_inner).add(&survey);
        Ok(())
    }
}

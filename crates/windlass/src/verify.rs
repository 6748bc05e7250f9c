//! `verify`: strict validation against the format's rules, and of the data where asked.

use std::collections::HashSet;

use serde::Serialize;
use windlass_catalog::Convention;
use windlass_formats::{Entry, Problem, Source, container};
use windlass_quant::measure;
use windlass_runtime::memory::Pool;
use windlass_tensor::{Element, Limits};

use crate::rows::{Reader, packing, ranges};
use crate::{Code, Error, Model, Result};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub ok: bool,
    pub problems: Vec<Finding>,
    pub tensors: usize,
    /// Bytes of tensor data that were read; 0 without `--deep`.
    pub bytes_read: u64,
}

/// One problem.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub code: String,
    pub message: String,
    pub tensor: Option<String>,
    pub offset: Option<u64>,
}

/// How `verify` goes on.
pub struct Options<'a> {
    /// Read all data: values that are not finite, scales that are not.
    pub deep: bool,
    pub limits: Limits,
    pub memory_limit: u64,
    /// Called with bytes read and bytes in all.
    pub progress: &'a dyn Fn(u64, u64),
}

/// Checks a model that could be opened. What keeps it from being opened is the error of [`Model::open`].
pub fn verify(model: &Model, options: &Options) -> Result<Verdict> {
    let source = &model.source;
    let mut problems = match container(source.container()) {
        Some(container) => container.verify(source, &options.limits)?,
        None => Vec::new(),
    };
    problems.extend(missing(model)?);
    problems.extend(side_files(model, &options.limits)?);
    problems.extend(vocabulary(model, &options.limits)?);
    let mut bytes_read = 0;
    if options.deep {
        let pool = Pool::new(options.memory_limit);
        for entry in source.tensors() {
            problems.extend(check_data(source, entry, &pool)?);
            bytes_read += entry.bytes();
            (options.progress)(bytes_read, source.bytes());
        }
    }
    let tensors = source.tensors().len();
    let problems: Vec<Finding> = problems.into_iter().map(finding).collect();
    Ok(Verdict { ok: problems.is_empty(), problems, tensors, bytes_read })
}

/// The verdict on a model that an error kept from being opened or read to its end, if the model is to blame.
pub fn refusal(error: &Error) -> Option<Verdict> {
    let Error { code: Code::Refused, message, tensor, offset, problem, .. } = error else { return None };
    let code = problem.unwrap_or("not-a-model").into();
    let found = Finding { code, message: message.clone(), tensor: tensor.clone(), offset: *offset };
    Some(Verdict { ok: false, problems: vec![found], tensors: 0, bytes_read: 0 })
}

fn finding(problem: Problem) -> Finding {
    let Problem { code, message, tensor, offset, .. } = problem;
    Finding { code: code.into(), message, tensor, offset }
}

/// A configuration or a tokenizer that cannot be read.
fn side_files(model: &Model, limits: &Limits) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let files = model.side_files(limits)?;
    if let Some(config) = files.get("config.json")
        && let Err(error) = serde_json::from_slice::<serde_json::Value>(config)
    {
        problems.push(Problem::new("bad-config", format!("config.json: {error}")));
    }
    let has_tokenizer = files.contains_key("tokenizer.json");
    if let (true, Err(error)) = (has_tokenizer, model.tokenizer(limits)) {
        problems.push(Problem::new("bad-tokenizer", error.message));
    }
    Ok(problems)
}

/// Tokens that the embedding has no row for.
fn vocabulary(model: &Model, limits: &Limits) -> Result<Option<Problem>> {
    let (Ok(identity), Ok(tokenizer)) = (&model.identity, model.tokenizer(limits)) else { return Ok(None) };
    let convention = container(model.source.container()).map_or(Convention::Hf, |c| c.convention());
    for piece in identity.architecture.pieces(&identity.hyper)? {
        if !piece.places(Convention::Gguf).iter().any(|place| place.tensor == "token_embd.weight") {
            continue;
        }
        let found = piece.places(convention).into_iter().find_map(|place| model.source.tensor(&place.tensor));
        let tokens = tokenizer.vocabulary_size();
        return Ok(found.filter(|entry| entry.rows() < tokens).map(|entry| {
            let message = format!("has {} rows, the tokenizer has {tokens} tokens", entry.rows());
            Problem::new("vocabulary", message).tensor(entry.name())
        }));
    }
    Ok(None)
}

/// Tensors that the architecture needs and the model lacks, or has in another shape.
fn missing(model: &Model) -> Result<Vec<Problem>> {
    let (Ok(identity), None) = (&model.identity, &model.adapter) else { return Ok(Vec::new()) };
    let source = &model.source;
    let convention = container(source.container()).map_or(Convention::Hf, |c| c.convention());
    let shape = |name: &str| source.tensor(name).map(|e| e.shape());
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for piece in identity.architecture.pieces(&identity.hyper)? {
        if piece.find(convention, shape).is_some() {
            continue;
        }
        let places = piece.places(convention);
        let wrong = places.iter().find_map(|p| Some((p, shape(&p.tensor)?)));
        let problem = match (wrong, places.first().filter(|_| piece.required)) {
            (Some((place, found)), _) => {
                let message = format!("the configuration asks for shape {:?}, found {found:?}", place.shape);
                Problem::new("wrong-shape", message).tensor(&place.tensor)
            }
            (None, Some(place)) => {
                Problem::new("missing-tensor", "the architecture needs this tensor").tensor(&place.tensor)
            }
            (None, None) => continue,
        };
        if seen.insert(problem.tensor.clone()) {
            problems.push(problem);
        }
    }
    Ok(problems)
}

/// The first value of a tensor that is not finite.
fn check_data(source: &Source, entry: &Entry, pool: &Pool) -> Result<Option<Problem>> {
    let float = match entry.element() {
        Element::Plain(dtype) => dtype.is_float(),
        packed => packing(packed).is_some(),
    };
    if !float {
        return Ok(None);
    }
    let (rows, columns) = (entry.rows(), entry.columns());
    if entry.values() == 0 {
        return Ok(None);
    }
    let granule = entry.row_granularity(columns);
    let at_once = ((1 << 18) / columns.max(1)).max(1).next_multiple_of(granule).clamp(1, rows.max(1));
    let reader = Reader { source, pool, waits: false };
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let mut values = pool.try_take("a block of floats", count * columns * 4)?;
        let values = values.as_f32_mut();
        reader.floats(entry, columns, first..first + count, values)?;
        if !measure::largest_magnitude(values).is_finite() {
            let at = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
            let (row, column) = (first + at / columns.max(1), at % columns.max(1));
            let message = format!("value {} in row {row}, column {column}", values[at]);
            let start = ranges(entry.element(), columns, row / granule * granule, 1);
            let offset = entry.planes()[0].offset + start.first().map_or(0, |range| range.0);
            return Ok(Some(Problem::new("not-finite", message).tensor(entry.name()).offset(offset)));
        }
    }
    Ok(None)
}

//! Importance matrices of llama.cpp: GGUF files, and the plain binary files (`.dat`) that came before them.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_tensor::{Array, DType, Limits, Metadata, Value};

use super::input::Reader;
use super::split;
use crate::{Entry, Error, Problem, Source};

/// How much each column of each matrix matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// Sorted by name.
    pub entries: Vec<ImatrixEntry>,
    /// Names of the texts it was computed from.
    pub datasets: Vec<String>,
    /// Number of chunks of text, and tokens of a chunk; `None` where the file does not say.
    pub chunks: Option<u64>,
    pub chunk_size: Option<u64>,
}

/// The columns of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ImatrixEntry {
    /// Name of the tensor in GGUF's convention: `blk.0.attn_q.weight`.
    pub name: String,
    /// Mean square of the activations that met each column; 1 for experts that were never chosen. Row after row.
    pub values: Vec<f32>,
    /// Number of matrices (experts) in the tensor; always 1 in files of the old kind, which do not keep it.
    pub rows: usize,
}

/// Reads an importance matrix of either kind.
pub fn read_imatrix(path: &Path, limits: &Limits) -> Result<Imatrix, Error> {
    let file = crate::files::open(path)?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    // The old kind is one long header.
    let wide = Limits { header_bytes: limits.side_file_bytes, ..limits.clone() };
    let mut reader = Reader::new(&file, length, path, &wide);
    if reader.take(4)? == b"GGUF" {
        return from_gguf(&split::open(path, limits)?, limits);
    }
    from_dat(&mut Reader::new(&file, length, path, &wide))
}

fn from_gguf(source: &Source, limits: &Limits) -> Result<Imatrix, Error> {
    let refuse = |problem: Problem| Error::refused(source.path(), problem);
    if source.bytes() > limits.side_file_bytes {
        let message = format!("an importance matrix has at most {} bytes", limits.side_file_bytes);
        return Err(refuse(Problem::new("too-large", message)));
    }
    let mut pairs: BTreeMap<&str, [Option<&Entry>; 2]> = BTreeMap::new();
    for entry in source.tensors() {
        if let Some(name) = entry.name().strip_suffix(".in_sum2") {
            pairs.entry(name).or_default()[0] = Some(entry);
        } else if let Some(name) = entry.name().strip_suffix(".counts") {
            pairs.entry(name).or_default()[1] = Some(entry);
        }
    }
    if pairs.is_empty() {
        let problem = Problem::new("not-an-imatrix", "it has no tensors called NAME.in_sum2 and NAME.counts");
        return Err(refuse(problem.help("give the file that llama-imatrix wrote")));
    }
    let mut entries = Vec::with_capacity(pairs.len());
    for (name, pair) in pairs {
        let [Some(sums), Some(counts)] = pair else {
            let problem = Problem::new("bad-imatrix", "expected both NAME.in_sum2 and NAME.counts, found one of them");
            return Err(refuse(problem.tensor(name)));
        };
        let values = means(floats(source, sums)?, &floats(source, counts)?);
        let values = values.map_err(|problem| refuse(problem.tensor(name)))?;
        entries.push(ImatrixEntry { name: name.into(), values, rows: counts.values() as usize });
    }
    let number = |key: &str| source.metadata().get(key).and_then(Value::as_u64);
    Ok(Imatrix {
        entries,
        datasets: datasets(source.metadata()),
        chunks: number("imatrix.chunk_count"),
        chunk_size: number("imatrix.chunk_size"),
    })
}

fn datasets(metadata: &Metadata) -> Vec<String> {
    let list = metadata.get("imatrix.datasets").and_then(Value::as_array).and_then(Array::as_strings);
    list.into_iter().flat_map(|list| list.iter()).map(String::from).collect()
}

/// All values of a plain F32 tensor.
fn floats(source: &Source, entry: &Entry) -> Result<Vec<f32>, Error> {
    if entry.element().dtype() != Some(DType::F32) {
        let message = format!("expected F32, found {}", entry.element().name());
        return Err(Error::refused(source.path(), Problem::new("bad-imatrix", message).tensor(entry.name())));
    }
    let mut bytes = vec![0; entry.bytes() as usize];
    source.read(entry, 0, 0, &mut bytes)?;
    Ok(floats_of(&bytes))
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// Divides each row of sums by its count.
fn means(mut sums: Vec<f32>, counts: &[f32]) -> Result<Vec<f32>, Problem> {
    if counts.is_empty() || sums.is_empty() || !sums.len().is_multiple_of(counts.len()) {
        let message = format!("{} sums cannot be shared by {} counts", sums.len(), counts.len());
        return Err(Problem::new("bad-imatrix", message));
    }
    let columns = sums.len() / counts.len();
    for (row, count) in sums.chunks_exact_mut(columns).zip(counts) {
        if *count > 0.0 {
            row.iter_mut().for_each(|v| *v /= count);
        } else {
            row.fill(1.0);
        }
    }
    finite(sums)
}

fn finite(values: Vec<f32>) -> Result<Vec<f32>, Problem> {
    match values.iter().find(|v| !v.is_finite() || **v < 0.0) {
        None => Ok(values),
        Some(bad) => Err(Problem::new("bad-imatrix", format!("a mean of squares cannot be {bad}"))),
    }
}

/// The old kind: entries, then how many chunks there were, then the name of the text; the last two may be missing.
fn from_dat(reader: &mut Reader) -> Result<Imatrix, Error> {
    reader.narrow = true;
    let count = reader.count()?;
    if count == 0 || count > reader.limits.tensors {
        let message = format!("expected GGUF or an old importance matrix of some entries, found {count} entries");
        return Err(reader.refuse(Problem::new("not-an-imatrix", message).offset(0)));
    }
    reader.expect(count, 4 + 1 + 4 + 4 + 4, "entries")?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let offset = reader.position();
        let entry = dat_entry(reader)?;
        if let Some(old) = entries.insert(entry.name.clone(), entry) {
            let problem = Problem::new("duplicate-tensor", "there are two entries of this name");
            return Err(reader.refuse(problem.tensor(&old.name).offset(offset)));
        }
    }
    let chunks = if reader.remaining() >= 4 { Some(reader.count()?) } else { None };
    let dataset = if reader.remaining() >= 4 {
        Some(reader.string("the name of the text", reader.limits.string_bytes)?)
    } else {
        None
    };
    let datasets = dataset.into_iter().filter(|name| !name.is_empty()).collect();
    Ok(Imatrix { entries: entries.into_values().collect(), datasets, chunks, chunk_size: None })
}

fn dat_entry(reader: &mut Reader) -> Result<ImatrixEntry, Error> {
    let name = reader.string("an entry's name", reader.limits.name_bytes as u64)?;
    let offset = reader.position();
    let calls: i32 = reader.number()?;
    let count: i32 = reader.number()?;
    let Ok(count @ 1..) = usize::try_from(count) else {
        let problem = Problem::new("bad-imatrix", format!("{count} values, expected some"));
        return Err(reader.refuse(problem.tensor(&name).offset(offset)));
    };
    let sums: Vec<f32> = reader.numbers(count)?;
    let values = means(sums, &[calls as f32]);
    let values = values.map_err(|problem| reader.refuse(problem.tensor(&name).offset(offset)))?;
    Ok(ImatrixEntry { name, values, rows: 1 })
}

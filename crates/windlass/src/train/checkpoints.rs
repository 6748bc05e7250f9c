//! Checkpoints on disk: `OUT/checkpoints/step-000020` with `state.safetensors` and `checkpoint.json`, complete or absent.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use twox_hash::XxHash3_128 as Xxh3;
use windlass_formats::{Target, TargetTensor, container, files};
use windlass_tensor::{Element, Limits, Tensor};
use windlass_train::State;

use super::fingerprint;
use crate::{Code, Error, Result};

const STATE: &str = "state.safetensors";
const ABOUT: &str = "checkpoint.json";
/// What the name of an unfinished checkpoint ends with.
const PARTIAL: &str = ".partial";

/// `checkpoint.json`.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    /// Of this format.
    version: u32,
    step: u64,
    /// Length and XXH3 (128 bits) of the file with the state.
    bytes: u64,
    xxh3: String,
    /// What must be the same for a training to go on.
    settings: Map<String, Json>,
}

/// The checkpoints of a training, and the thread that writes the next one.
pub struct Checkpoints {
    folder: PathBuf,
    settings: Map<String, Json>,
    /// How many of the latest are kept.
    keep: usize,
    /// The step of the last one that was written or read.
    last: Option<u64>,
    writer: Option<JoinHandle<Result<()>>>,
}

/// What is to be written, and what is to be kept.
struct Work {
    folder: PathBuf,
    state: State,
    about: About,
    keep: usize,
    best: Option<u64>,
    metrics: File,
}

impl Checkpoints {
    /// Those of `out/checkpoints`, for a training with these settings.
    pub fn new(out: &Path, settings: Map<String, Json>, keep: usize) -> Checkpoints {
        Checkpoints { folder: out.join("checkpoints"), settings, keep: keep.max(1), last: None, writer: None }
    }

    /// Whether there are any.
    pub fn any(out: &Path) -> bool {
        !complete(&out.join("checkpoints")).is_empty()
    }

    /// Removes all of them, and what an interrupted training left unfinished.
    pub fn clear(&self) -> Result<()> {
        for step in complete(&self.folder) {
            remove(&self.at(step))?;
        }
        self.clear_unfinished()
    }

    /// Removes what an interrupted training left unfinished.
    pub fn clear_unfinished(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let step = name.to_str().and_then(|name| step_of(name.strip_suffix(PARTIAL)?));
            if step.is_some() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The latest complete one: its step and state. One that is damaged is passed over, with a word about it; one of
    /// another training is refused.
    pub fn latest(&mut self, limits: &Limits, warn: &dyn Fn(&str)) -> Result<Option<(u64, State)>> {
        let steps = complete(&self.folder);
        for step in steps.iter().rev() {
            match self.read(*step, limits) {
                Ok(state) => {
                    self.last = Some(*step);
                    return Ok(Some((*step, state)));
                }
                Err(error) if error.code == Code::Refused => warn(&format!("passed over: {}", error.message)),
                Err(error) => return Err(error),
            }
        }
        if steps.is_empty() {
            return Ok(None);
        }
        let message = format!("no checkpoint in {} can be used", self.folder.display());
        let help = "begin anew with --overwrite, or choose another --out";
        Err(Error::new(Code::Refused, message).at(&self.folder).help(help))
    }

    /// Reads the checkpoint of a step.
    pub fn read(&self, step: u64, limits: &Limits) -> Result<State> {
        let folder = self.at(step);
        let about = read_about(&folder.join(ABOUT), step, limits)?;
        if let Some((name, known, here)) = fingerprint::difference(&about.settings, &self.settings) {
            let message =
                format!("{} is of another training: {name} was {known} there and is {here} now", folder.display());
            return Err(Error::usage(message)
                .at(&folder)
                .help("train with the same settings, or begin anew in another --out"));
        }
        read_state(&folder.join(STATE), &about, limits)
    }

    /// Writes `state` in the background, after what is still being written. `best` is kept beside the latest.
    pub fn write(&mut self, step: u64, state: State, best: Option<u64>, metrics: File) -> Result<()> {
        self.finish()?;
        if self.last == Some(step) {
            return Ok(());
        }
        let about = About { version: 1, step, bytes: 0, xxh3: String::new(), settings: self.settings.clone() };
        let work = Work { folder: self.folder.clone(), state, about, keep: self.keep, best, metrics };
        let spawned = std::thread::Builder::new().name("checkpoint".into()).spawn(move || work.run());
        self.writer = Some(spawned.map_err(|e| Error::new(Code::Failed, format!("no thread for a checkpoint: {e}")))?);
        self.last = Some(step);
        Ok(())
    }

    /// Tells what went wrong in the background, as soon as that is known.
    pub fn check(&mut self) -> Result<()> {
        match self.writer.as_ref().is_some_and(JoinHandle::is_finished) {
            true => self.finish(),
            false => Ok(()),
        }
    }

    /// Waits until everything is on disk.
    pub fn finish(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let crashed = |_| Err(Error::new(Code::Failed, "the thread that writes checkpoints crashed"));
        writer.join().unwrap_or_else(crashed).map_err(|error| self.explain(error))
    }

    /// Where the last checkpoint lies.
    pub fn last(&self) -> Option<PathBuf> {
        self.last.map(|step| self.at(step))
    }

    fn at(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    fn explain(&self, mut error: Error) -> Error {
        let good = complete(&self.folder)
            .last()
            .map_or("there is none before it".into(), |step| format!("{} is complete", self.at(*step).display()));
        error.message = format!("the checkpoint could not be written: {}; {good}", error.message);
        error
    }
}

impl Drop for Checkpoints {
    /// A training that fails does not end in the middle of a checkpoint.
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Work {
    fn run(mut self) -> Result<()> {
        let target = self.folder.join(name_of(self.about.step));
        let partial = self.folder.join(format!("{}{PARTIAL}", name_of(self.about.step)));
        self.fill(&partial).inspect_err(|_| drop(remove(&partial)))?;
        // The disk has the steps before it has the checkpoint that counts on them.
        let _ = self.metrics.sync_data();
        // A damaged one may be in the way.
        remove(&target)?;
        std::fs::rename(&partial, &target).map_err(|e| Error::io(&target, e))?;
        sync_folder(&self.folder);
        self.prune()
    }

    /// Writes both files and waits until the disk has them.
    fn fill(&mut self, folder: &Path) -> Result<()> {
        remove(folder)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join(STATE);
        (self.about.bytes, self.about.xxh3) = write_state(&path, &self.state)?;
        let path = folder.join(ABOUT);
        let text = serde_json::to_vec_pretty(&self.about).map_err(|e| Error::new(Code::Failed, e.to_string()))?;
        let written = File::create(&path).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(|e| Error::io(&path, e))?;
        sync_folder(folder);
        Ok(())
    }

    /// Removes all but the latest and the best.
    fn prune(&self) -> Result<()> {
        let steps = complete(&self.folder);
        let old = steps.len().saturating_sub(self.keep);
        let mut old = steps.iter().take(old).filter(|step| Some(**step) != self.best);
        old.try_for_each(|step| remove(&self.folder.join(name_of(*step))))
    }
}

/// Writes tensors as safetensors. Gives length and hash of the file.
fn write_state(path: &Path, state: &State) -> Result<(u64, String)> {
    let tensors = state.iter().map(|(name, tensor)| TargetTensor {
        name: name.clone(),
        element: tensor.element().clone(),
        shape: tensor.shape().to_vec(),
    });
    let target = Target { tensors: tensors.collect(), ..Target::default() };
    let missing = || Error::new(Code::Failed, "safetensors is not registered");
    let layout = container("safetensors").ok_or_else(missing)?.layout(&target)?;
    let part = layout.parts.first().ok_or_else(missing)?;
    let mut order: Vec<(u64, &Tensor)> = Vec::with_capacity(state.len());
    for (extents, tensor) in layout.tensors.iter().zip(state.values()) {
        order.extend(extents.first().map(|extent| (extent.offset, tensor)));
    }
    order.sort_by_key(|(offset, _)| *offset);
    let io = |e| Error::io(path, e);
    let (mut file, mut hasher, mut at) = (File::create(path).map_err(io)?, Xxh3::new(), 0u64);
    let mut put = |bytes: &[u8]| {
        hasher.write(bytes);
        at += bytes.len() as u64;
        file.write_all(bytes).map(|()| at)
    };
    let mut end = put(&part.head).map_err(io)?;
    for (offset, tensor) in order {
        let gap = offset.saturating_sub(end);
        put(&vec![0; gap as usize]).map_err(io)?;
        end = put(tensor.bytes().unwrap_or_default()).map_err(io)?;
    }
    let hash = format!("{:032x}", hasher.finish_128());
    file.sync_all().map_err(io)?;
    Ok((end, hash))
}

fn read_about(path: &Path, step: u64, limits: &Limits) -> Result<About> {
    let damaged = |message: String| Error::new(Code::Refused, format!("{}: {message}", path.display())).at(path);
    let text = files::read_small(path, limits.side_file_bytes).map_err(|e| damaged(e.to_string()))?;
    let about: About = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if about.version != 1 {
        return Err(damaged(format!("has version {}, expected 1: a newer windlass wrote it", about.version)));
    }
    if about.step != step {
        return Err(damaged(format!("is of step {}, its folder of step {step}", about.step)));
    }
    Ok(about)
}

/// Reads the state, whose bytes must be those that were written.
fn read_state(path: &Path, about: &About, limits: &Limits) -> Result<State> {
    let damaged = |message: String| Error::new(Code::Refused, format!("{}: {message}", path.display())).at(path);
    let file = File::open(path).map_err(|e| damaged(e.to_string()))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if length != about.bytes {
        return Err(damaged(format!("has {length} bytes, {} were written", about.bytes)));
    }
    if hash(file).map_err(|e| Error::io(path, e))? != about.xxh3 {
        return Err(damaged("its bytes are not those that were written: the checksum differs".into()));
    }
    let source = windlass_formats::open(path, limits)?;
    let mut state = State::new();
    for entry in source.tensors() {
        let Element::Plain(dtype) = entry.element() else {
            return Err(damaged(format!("{} is {}", entry.name(), entry.element().name())));
        };
        let mut tensor = windlass_ops::zeros(*dtype, entry.shape().to_vec())?;
        if let Some(bytes) = tensor.bytes_mut() {
            source.read(entry, 0, 0, bytes)?;
        }
        state.insert(entry.name().into(), tensor);
    }
    Ok(state)
}

fn hash(file: File) -> std::io::Result<String> {
    let (mut reader, mut hasher) = (BufReader::new(file), Xxh3::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(format!("{:032x}", hasher.finish_128())),
            count => hasher.write(&piece[..count]),
        }
    }
}

/// Steps of the checkpoints of a folder, in order.
fn complete(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut steps: Vec<u64> = entries.filter_map(|entry| step_of(entry.file_name().to_str()?)).collect();
    steps.sort_unstable();
    steps
}

fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

fn step_of(name: &str) -> Option<u64> {
    let step: u64 = name.strip_prefix("step-")?.parse().ok()?;
    (name == name_of(step)).then_some(step)
}

/// Removes a checkpoint, and nothing that is not of one.
fn remove(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for name in [ABOUT, STATE] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&path, error)),
            _ => {}
        }
    }
    std::fs::remove_dir(folder).map_err(|e| Error::io(folder, e))
}

fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

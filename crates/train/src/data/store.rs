//! Examples as they are kept: eight bytes a token, in memory or, where they are many, in a file without a name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_128;
use windlass_runtime::random::Philox;

use super::{Example, IGNORED};
use crate::Error;

/// Stands for -100 among labels of 32 bits.
const IGNORED_WORD: u32 = u32::MAX;
/// Words that are written to the file at a time.
const PIECE: usize = 1 << 18;
/// The stream of random numbers that chooses what is held out; those below number epochs.
const HELD_OUT: u64 = u64::MAX;

/// Examples, or a choice of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Examples {
    all: Arc<All>,
    chosen: Option<Arc<[u32]>>,
}

#[derive(Debug)]
struct All {
    /// Where each ends, in tokens.
    ends: Vec<u64>,
    /// Targets of each.
    targets: Vec<u32>,
    words: Words,
    fingerprint: u128,
}

/// Tokens of an example, then its labels.
#[derive(Debug)]
enum Words {
    Memory(Vec<u32>),
    File(Mutex<File>),
}

impl Examples {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.all.ends.len(), |chosen| chosen.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of example `index`; 0 where there is none.
    pub fn length(&self, index: usize) -> usize {
        self.place(index).map_or(0, |at| (self.all.ends[at] - self.start(at)) as usize)
    }

    /// Tokens of all.
    pub fn tokens(&self) -> u64 {
        (0..self.len()).map(|index| self.length(index) as u64).sum()
    }

    /// Tokens of all that are learned.
    pub fn targets(&self) -> u64 {
        (0..self.len()).filter_map(|index| self.place(index)).map(|at| u64::from(self.all.targets[at])).sum()
    }

    /// Whether they are in a file and not in memory.
    pub fn is_spilled(&self) -> bool {
        matches!(self.all.words, Words::File(_))
    }

    /// Example `index`.
    pub fn get(&self, index: usize) -> Result<Example, Error> {
        let missing = || Error::Data(format!("there is no example {index} among {}", self.len()));
        let at = self.place(index).ok_or_else(missing)?;
        let (start, length) = (self.start(at), self.length(index));
        let words = match &self.all.words {
            Words::Memory(words) => words.get(2 * start as usize..).and_then(|words| words.get(..2 * length)),
            Words::File(file) => {
                let mut bytes = vec![0; 8 * length];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let read = file.seek(SeekFrom::Start(8 * start)).and_then(|_| file.read_exact(&mut bytes));
                read.map_err(spilling)?;
                let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
                return Ok(example(&words));
            }
        };
        words.map(example).ok_or_else(missing)
    }

    /// A hash of all tokens and labels and their order (XXH3, 128 bits).
    pub fn fingerprint(&self) -> u128 {
        let Some(chosen) = &self.chosen else { return self.all.fingerprint };
        let mut hash = XxHash3_128::new();
        hash.write(&self.all.fingerprint.to_le_bytes());
        chosen.iter().for_each(|index| hash.write(&index.to_le_bytes()));
        hash.finish_128()
    }

    /// Holds out a part of the examples, chosen by `seed`: what is left, and what is held out, in the order of the file.
    /// At least one example is on each side.
    pub fn split(&self, part: f64, seed: u64) -> Result<(Examples, Examples), Error> {
        if !(part > 0.0 && part < 1.0) {
            return Err(Error::Setting(format!("the part to hold out must be between 0 and 1, not {part}")));
        }
        let count = self.len();
        if count < 2 {
            return Err(Error::Data(format!("{count} examples cannot be split")));
        }
        let held = ((count as f64 * part).round() as usize).clamp(1, count - 1);
        let order = Philox::new(seed).sequence(HELD_OUT).permutation(count);
        let side = |indices: &[usize]| {
            let mut indices = indices.to_vec();
            indices.sort_unstable();
            let chosen = indices.into_iter().filter_map(|index| self.place(index)).map(|at| at as u32).collect();
            Examples { all: self.all.clone(), chosen: Some(chosen) }
        };
        Ok((side(&order[held..]), side(&order[..held])))
    }

    fn place(&self, index: usize) -> Option<usize> {
        match &self.chosen {
            Some(chosen) => chosen.get(index).map(|at| *at as usize),
            None => (index < self.all.ends.len()).then_some(index),
        }
    }

    fn start(&self, at: usize) -> u64 {
        at.checked_sub(1).map_or(0, |before| self.all.ends[before])
    }
}

impl FromIterator<Example> for Examples {
    fn from_iter<I: IntoIterator<Item = Example>>(examples: I) -> Self {
        let mut collector = Collector::new(u64::MAX, None);
        for example in examples {
            collector.keep(&example);
        }
        collector.into_examples(None)
    }
}

/// Takes examples one by one.
pub struct Collector {
    ends: Vec<u64>,
    targets: Vec<u32>,
    words: Vec<u32>,
    budget: u64,
    folder: Option<PathBuf>,
    file: Option<File>,
    hash: XxHash3_128,
}

impl Collector {
    /// Keeps up to `budget` bytes in memory; what is more goes to a file without a name in `folder`, or in the system's
    /// folder for such files.
    pub fn new(budget: u64, folder: Option<PathBuf>) -> Self {
        let (ends, targets, words, file) = (Vec::new(), Vec::new(), Vec::new(), None);
        Self { ends, targets, words, budget, folder, file, hash: XxHash3_128::new() }
    }

    /// Examples so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes one more.
    pub fn push(&mut self, example: &Example) -> Result<(), Error> {
        if self.len() >= u32::MAX as usize {
            return Err(Error::Data(format!("there are more than {} examples", u32::MAX)));
        }
        self.keep(example);
        if self.file.is_none() && self.words.len() as u64 * 4 > self.budget {
            let file = match &self.folder {
                Some(folder) => std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder)),
                None => tempfile::tempfile(),
            };
            self.file = Some(file.map_err(spilling)?);
        }
        match &mut self.file {
            Some(file) if self.words.len() >= PIECE => write(file, &mut self.words),
            _ => Ok(()),
        }
    }

    /// All of them.
    pub fn finish(mut self) -> Result<Examples, Error> {
        let mut file = self.file.take();
        if let Some(file) = &mut file {
            write(file, &mut self.words)?;
        }
        Ok(self.into_examples(file))
    }

    fn keep(&mut self, example: &Example) {
        let from = self.words.len();
        let word = |label: &i64| u32::try_from(*label).unwrap_or(IGNORED_WORD);
        self.words.extend(&example.tokens);
        self.words.extend(example.labels.iter().map(word));
        self.hash.write(&(example.tokens.len() as u64).to_le_bytes());
        for word in &self.words[from..] {
            self.hash.write(&word.to_le_bytes());
        }
        self.ends.push(self.ends.last().copied().unwrap_or(0) + example.tokens.len() as u64);
        self.targets.push(example.targets() as u32);
    }

    fn into_examples(self, file: Option<File>) -> Examples {
        let words = match file {
            Some(file) => Words::File(Mutex::new(file)),
            None => Words::Memory(self.words),
        };
        let all = All { ends: self.ends, targets: self.targets, words, fingerprint: self.hash.finish_128() };
        Examples { all: Arc::new(all), chosen: None }
    }
}

fn write(file: &mut File, words: &mut Vec<u32>) -> Result<(), Error> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    words.clear();
    file.write_all(&bytes).map_err(spilling)
}

fn spilling(source: std::io::Error) -> Error {
    Error::Io { path: "the file that examples are kept in".into(), source }
}

fn example(words: &[u32]) -> Example {
    let (tokens, labels) = words.split_at(words.len() / 2);
    let label = |word: &u32| if *word == IGNORED_WORD { IGNORED } else { i64::from(*word) };
    Example { tokens: tokens.to_vec(), labels: labels.iter().map(label).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some(count: u32) -> Vec<Example> {
        let one = |i: u32| Example {
            tokens: (i..2 * i + 1).collect(),
            labels: (i..2 * i + 1).map(|t| if t % 3 == 0 { IGNORED } else { i64::from(t) }).collect(),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn memory_and_file_hold_the_same() {
        let examples = some(1000);
        let memory: Examples = examples.iter().cloned().collect();
        let mut collector = Collector::new(1000, None);
        examples.iter().for_each(|example| collector.push(example).unwrap());
        let file = collector.finish().unwrap();
        assert!(file.is_spilled() && !memory.is_spilled());
        assert_eq!(file.fingerprint(), memory.fingerprint());
        for (index, example) in examples.iter().enumerate() {
            assert_eq!(&file.get(index).unwrap(), example);
            assert_eq!(&memory.get(index).unwrap(), example);
        }
        assert!(file.get(1000).is_err() && memory.get(1000).is_err());
        let targets: usize = examples.iter().map(Example::targets).sum();
        assert_eq!((memory.tokens(), memory.targets()), (500_500, targets as u64));
    }

    #[test]
    fn a_part_is_held_out_by_the_seed() {
        let all: Examples = some(100).into_iter().collect();
        let (kept, held) = all.split(0.1, 7).unwrap();
        assert_eq!((kept.len(), held.len()), (90, 10));
        let lengths = |e: &Examples| (0..e.len()).map(|i| e.length(i)).collect::<Vec<_>>();
        let mut both = [lengths(&kept), lengths(&held)].concat();
        both.sort_unstable();
        assert_eq!(both, (1..=100).collect::<Vec<_>>());
        let again = all.split(0.1, 7).unwrap();
        assert_eq!((kept.fingerprint(), held.fingerprint()), (again.0.fingerprint(), again.1.fingerprint()));
        assert_ne!(held.fingerprint(), all.split(0.1, 8).unwrap().1.fingerprint());
        assert_ne!(held.fingerprint(), kept.fingerprint());
        assert!(all.split(1.0, 7).is_err());
        assert!(some(1).into_iter().collect::<Examples>().split(0.5, 7).is_err());
    }

    #[test]
    fn a_fingerprint_tells_tokens_labels_and_borders() {
        let print = |rows: &[(&[u32], &[i64])]| {
            let example =
                |(tokens, labels): &(&[u32], &[i64])| Example { tokens: tokens.to_vec(), labels: labels.to_vec() };
            rows.iter().map(example).collect::<Examples>().fingerprint()
        };
        let one = print(&[(&[1, 2], &[1, 2])]);
        assert_ne!(one, print(&[(&[1, 2], &[-100, 2])]));
        assert_ne!(one, print(&[(&[1], &[1]), (&[2], &[2])]));
        assert_ne!(one, print(&[(&[2, 1], &[2, 1])]));
    }
}

//! Whatever a file says, reading its header takes memory in proportion to its length. The allocator counts, so this
//! program has one test only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/gguf.rs"]
#[allow(dead_code, reason = "shared with other test programs")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use windlass_formats::{gguf, open};
use windlass_tensor::Limits;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the rules of `dealloc`, and all memory comes from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Largest number of bytes allocated at a time while `work` runs.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed) - before)
}

/// Times the length of the file, and a little for messages.
const FACTOR: usize = 12;
const CONSTANT: usize = 16 << 10;

#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Number(usize, u64),
    Cut(usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        0..70u64,
        Just(u64::MAX),
        Just(1 << 63),
        Just(1 << 32),
        (0..64u32).prop_map(|n| 1 << n),
        any::<u64>()
    ];
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (any::<usize>(), number).prop_map(|(at, number)| Change::Number(at, number)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match *change {
        Change::Byte(at, byte) => bytes[at % length] = byte,
        Change::Number(at, number) => {
            let at = at % length;
            let end = length.min(at + 8);
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        Change::Cut(at) => bytes.truncate(at % length),
        Change::Repeat(from, to) => {
            let (from, to) = (from % length, to % length);
            let piece = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.splice(to..to, piece);
        }
    }
}

fn vocabulary(items: usize) -> Vec<u8> {
    let builder = support::Builder::new(3);
    let strings = |length: usize| -> Vec<u8> {
        (0..items).flat_map(|i| builder.string(format!("{i:0length$}").as_bytes())).collect()
    };
    let scores = vec![0; 4 * items];
    let (tokens, merges) = (strings(6), strings(11));
    builder
        .clone()
        .key("tokenizer.ggml.tokens", support::ARRAY, &builder.array(support::STRING, items as u64, &tokens))
        .key("tokenizer.ggml.merges", support::ARRAY, &builder.array(support::STRING, items as u64, &merges))
        .key("tokenizer.ggml.token_type", support::ARRAY, &builder.array(support::I32, items as u64, &scores))
        .tensor("weight", &[8], 0, 0)
        .data(32)
        .bytes()
}

#[test]
fn memory_is_in_proportion_to_the_file() {
    let limits = Limits::default();
    let within = |bytes: &[u8]| {
        let (result, peak) = peak(|| gguf::parse(bytes, &limits));
        assert!(peak <= FACTOR * bytes.len() + CONSTANT, "{peak} bytes for a file of {}", bytes.len());
        result
    };

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vocabulary(150_000)).unwrap();
    let length = std::fs::metadata(file.path()).unwrap().len() as usize;
    let begin = Instant::now();
    let (source, most) = peak(|| open(file.path(), &limits).unwrap());
    println!("150,000 tokens and merges: {:?}, {most} bytes for a file of {length}", begin.elapsed());
    assert_eq!(source.metadata().len(), 3);
    assert!(most <= 5 * length, "{most} bytes for a file of {length}");

    // A level of nested arrays announces as much as the file has room for, again and again.
    let nested = |depth: usize, room: usize| {
        let builder = support::Builder::new(3);
        let inner = builder.array(support::U8, room as u64, &vec![0; room]);
        let value = (0..depth).fold(inner, |v, _| builder.array(support::ARRAY, v.len() as u64 / 12, &v));
        builder.key("key", support::ARRAY, &value).bytes()
    };
    assert!(within(&nested(60, 100_000)).is_err());

    let seeds: Vec<Vec<u8>> = (1..=3).map(|version| support::valid(version).bytes()).collect();
    seeds.iter().for_each(|seed| assert!(within(seed).is_ok()));
    let cases = (0..seeds.len(), prop::collection::vec(change(), 1..6));
    let mut runner = TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&cases, |(seed, changes)| {
        let mut bytes = seeds[seed].clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        if let Ok(header) = within(&bytes) {
            for tensor in header.tensors() {
                prop_assert!(tensor.offset() + tensor.bytes() <= bytes.len() as u64);
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

//! Speed of every scheme, in MB/s of `f32` read by the encoder and written by the decoder. Where an encoder must see a tensor
//! before it begins, that pass is in its time. `encode`, `weighted` and `decode` work within a cache, on one thread; `memory`
//! decodes what no cache holds, `copy` reads and writes as many bytes there and does nothing else, and the last columns are
//! the share that decoding reaches of it, on one thread and on two. `bytes` are read and written for each value.
//!
//!     cargo run --release -p windlass-quant --example throughput [NAME-PREFIX [SCALE]]
//!
//! SCALE multiplies the values, which are of the size of 0.5: some encoders have more to do for larger ones.

use std::time::{Duration, Instant};

use windlass_quant::{Grid, Importance, Packing, SchemeRef, schemes};
use windlass_tensor::{DType, PackedLayout};

const ROWS: usize = 16;
const COLUMNS: usize = 4096;
const LIMIT: Duration = Duration::from_millis(200);
/// How many times the rows are repeated to fill memory: 256 MiB of `f32`.
const TIMES: usize = 1024;

/// Runs that are measured at least, after one that is not.
const RUNS: usize = 3;

/// The best of several runs, in MB/s of so many `f32`.
fn rate(count: usize, mut f: impl FnMut()) -> f64 {
    f();
    let (mut best, mut runs, start) = (Duration::MAX, 0, Instant::now());
    while runs < RUNS || start.elapsed() < LIMIT {
        let run = Instant::now();
        f();
        best = best.min(run.elapsed());
        runs += 1;
    }
    (count * 4) as f64 / 1e6 / best.as_secs_f64()
}

/// Columns in order of their groups, for schemes that say so.
fn fill_order(scheme: SchemeRef, planes: &mut [Vec<u8>]) {
    let Grid::Affine { group, .. } = scheme.grid() else { return };
    for (_, bytes) in scheme.planes().iter().zip(planes).filter(|(plane, _)| plane.name == "g_idx") {
        for (column, entry) in bytes.chunks_exact_mut(4).enumerate() {
            let index = column.checked_div(group).unwrap_or(0) as u32;
            entry.copy_from_slice(&index.to_le_bytes());
        }
    }
}

/// Calls `f` for each part of `large` and its number, the parts shared out among threads.
fn on_threads(threads: usize, large: &mut [f32], count: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let share = (large.len() / count).div_ceil(threads);
    std::thread::scope(|scope| {
        for (thread, large) in large.chunks_mut(share * count).enumerate() {
            let f = &f;
            scope.spawn(move || {
                let parts = large.chunks_exact_mut(count).enumerate();
                parts.for_each(|(i, values)| f(thread * share + i, values));
            });
        }
    });
}

/// Memory that no cache holds, there once and for all.
struct Memory {
    source: Vec<f32>,
    target: Vec<f32>,
}

impl Memory {
    /// Speed of decoding rows out of memory into memory, and of a copy of as many bytes, on so many threads.
    fn speeds(&mut self, packing: &Packing, columns: usize, planes: &[Vec<u8>], threads: usize) -> (f64, f64) {
        let scheme = packing.scheme;
        let whole = |i: usize| scheme.planes()[i].whole;
        let repeated = |(i, plane): (usize, &Vec<u8>)| plane.repeat(if whole(i) { 1 } else { TIMES });
        let stored: Vec<Vec<u8>> = planes.iter().enumerate().map(repeated).collect();
        let part = |i: usize, at: usize| {
            let length = planes[i].len();
            &stored[i][if whole(i) { 0 } else { at * length }..][..length]
        };
        let count = ROWS * columns;
        let (source, target) = (&self.source, &mut self.target[..count * TIMES]);
        let decode = rate(count * TIMES, || {
            on_threads(threads, target, count, |at, values| {
                let parts: Vec<&[u8]> = (0..planes.len()).map(|i| part(i, at)).collect();
                scheme.decode(&parts, columns, packing.float, values).expect("the lengths agree");
            });
        });
        let read = planes.iter().map(Vec::len).sum::<usize>() / 4;
        let copy = rate(count * TIMES, || {
            on_threads(threads, target, count, |at, values| {
                let (now, rest) = values.split_at_mut(read.min(count));
                now.copy_from_slice(&source[at * count..][..now.len()]);
                rest.fill(0.0);
            });
        });
        (decode, copy)
    }
}

fn main() {
    let prefix = std::env::args().nth(1).unwrap_or_default();
    let scale: f32 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32 - 0.5
    };
    let all: Vec<f32> =
        (0..ROWS * COLUMNS * 2).map(|_| scale * (uniform() + uniform() + uniform() + uniform())).collect();
    let importance: Vec<f32> = (0..COLUMNS * 2).map(|_| uniform() + 1.0).collect();

    let most = all.len() * TIMES;
    let mut memory = Memory { source: vec![1.0; most], target: vec![1.0; most] };
    println!(
        "{:<16} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6}",
        "scheme", "bytes", "encode", "weighted", "decode", "memory", "copy", "ratio", "2 memory", "2 copy", "ratio"
    );
    for scheme in schemes().into_iter().filter(|s| s.name().starts_with(&prefix)) {
        let packing = Packing { scheme, float: DType::BF16 };
        let columns = COLUMNS.next_multiple_of(scheme.block());
        let values = &all[..ROWS * columns];
        let sizes = packing.plane_bytes(&[ROWS, columns]).expect("rows are whole blocks");
        let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0; *n as usize]).collect();
        let mut encode = |weights: Option<&[f32]>| {
            rate(values.len(), || {
                let mut planes: Vec<&mut [u8]> = planes.iter_mut().map(Vec::as_mut_slice).collect();
                if scheme.tallies() {
                    scheme.begin(&scheme.tally(values, columns, packing.float), &mut planes);
                }
                let done = scheme.encode(values, columns, weights, packing.float, &mut planes);
                done.expect("the lengths agree");
            })
        };
        let can = scheme.can_encode();
        let plain = (can && scheme.importance() != Importance::Required).then(|| encode(None));
        let weighted =
            (can && scheme.importance() != Importance::Ignored).then(|| encode(Some(&importance[..columns])));
        fill_order(scheme, &mut planes);
        let parts: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
        let mut decoded = vec![0.0; values.len()];
        let decode = rate(values.len(), || {
            scheme.decode(&parts, columns, packing.float, &mut decoded).expect("the lengths agree");
        });
        let show = |rate: Option<f64>| rate.map_or("-".into(), |r| format!("{r:.0}"));
        let (plain, weighted) = (show(plain), show(weighted));
        let (name, bytes) = (scheme.name(), packing.bits_per_weight() / 8.0 + 4.0);
        print!("{name:<16} {bytes:>6.2} {plain:>8} {weighted:>8} {decode:>8.0}");
        for threads in [1, 2] {
            let (memory, copy) = memory.speeds(&packing, columns, &planes, threads);
            print!(" {memory:>8.0} {copy:>8.0} {:>6.2}", memory / copy);
        }
        println!();
    }
}

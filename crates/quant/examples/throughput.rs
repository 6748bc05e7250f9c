//! Speed of every scheme on one thread, in MB/s of `f32` read by the encoder and written by the decoder. Where an encoder
//! must see a tensor before it begins, that pass is in its time. `encode` and `decode` work within a cache; `memory` decodes
//! what no cache holds, and `copy` reads and writes as many bytes there and does nothing else.
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

/// The best of several runs, in MB/s of so many `f32`.
fn rate(count: usize, mut f: impl FnMut()) -> f64 {
    let (mut best, start) = (Duration::MAX, Instant::now());
    f();
    while start.elapsed() < LIMIT {
        let run = Instant::now();
        f();
        best = best.min(run.elapsed());
    }
    (count * 4) as f64 / 1e6 / best.min(start.elapsed()).as_secs_f64()
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

/// Speed of decoding rows out of memory into memory, and of a copy of as many bytes.
fn in_memory(packing: &Packing, columns: usize, planes: &[Vec<u8>], large: &mut [f32]) -> (f64, f64) {
    let scheme = packing.scheme;
    let whole = |i: usize| scheme.planes()[i].whole;
    let repeated = |(i, plane): (usize, &Vec<u8>)| plane.repeat(if whole(i) { 1 } else { TIMES });
    let stored: Vec<Vec<u8>> = planes.iter().enumerate().map(repeated).collect();
    let part = |i: usize, at: usize| {
        let length = planes[i].len();
        &stored[i][if whole(i) { 0 } else { at * length }..][..length]
    };
    let count = ROWS * columns;
    let large = &mut large[..count * TIMES];
    let decode = rate(count * TIMES, || {
        for (at, values) in large.chunks_exact_mut(count).enumerate() {
            let parts: Vec<&[u8]> = (0..planes.len()).map(|i| part(i, at)).collect();
            scheme.decode(&parts, columns, packing.float, values).expect("the lengths agree");
        }
    });
    let mut bytes: Vec<u8> = vec![0; count * 4 * TIMES];
    let copy = rate(count * TIMES, || {
        for (at, out) in bytes.chunks_exact_mut(count * 4).enumerate() {
            let mut rest = out;
            for (i, plane) in planes.iter().enumerate() {
                let (now, after) = rest.split_at_mut(plane.len().min(rest.len()));
                now.copy_from_slice(&part(i, at)[..now.len()]);
                rest = after;
            }
            rest.fill(1);
        }
    });
    (decode, copy)
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

    let mut large = vec![0.0; all.len() / 2 * TIMES * 2];
    println!(
        "{:<16} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6}",
        "scheme", "bits", "encode", "weighted", "decode", "memory", "copy", "ratio"
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
        let (bits, plain, weighted) = (packing.bits_per_weight(), show(plain), show(weighted));
        let (memory, copy) = in_memory(&packing, columns, &planes, &mut large);
        let (name, ratio) = (scheme.name(), memory / copy);
        println!(
            "{name:<16} {bits:>6.2} {plain:>8} {weighted:>8} {decode:>8.0} {memory:>8.0} {copy:>8.0} {ratio:>6.2}"
        );
    }
}

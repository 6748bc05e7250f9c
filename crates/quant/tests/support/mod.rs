//! What the tests of schemes share: golden files, and encoding and decoding whole matrices or cuts of them.

#![allow(dead_code, clippy::unwrap_used)]

pub mod stored;

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use safetensors::SafeTensors;
use windlass_quant::arrange::{ArrangementRef, Array, Stored};
use windlass_quant::{Packing, SchemeRef, Tally, float};
use windlass_tensor::{DType, PackedLayout};

pub fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub fn floats(file: &SafeTensors, key: &str) -> Vec<f32> {
    let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
    let dtype = DType::from_name(&format!("{:?}", view.dtype())).unwrap();
    let mut values = vec![0.0; view.data().len() / dtype.size()];
    float::to_f32(dtype, view.data(), &mut values).unwrap();
    values
}

/// The matrix that the scripts beside the golden files compute in the same way, rounded to `dtype`.
pub fn synthetic(rows: usize, columns: usize, dtype: DType) -> Vec<f32> {
    let value = |i: usize| {
        let mut h = i as u64 + 1;
        h = (h ^ h >> 30).wrapping_mul(0xbf58476d1ce4e5b9);
        h = (h ^ h >> 27).wrapping_mul(0x94d049bb133111eb);
        h ^= h >> 31;
        match (i / 128 % 7, i / 128 % 11) {
            (_, 4) => 0.75,
            (2, _) => 0.0,
            _ => ((h >> 40) as i64 - (1 << 23)) as f32 * 2f32.powi(-23 - (h & 3) as i32),
        }
    };
    round(&(0..rows * columns).map(value).collect::<Vec<f32>>(), dtype)
}

/// Sums of twelve uniform numbers, which are near enough to normal.
pub fn normal(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

pub fn round(values: &[f32], dtype: DType) -> Vec<f32> {
    let mut bytes = vec![0; values.len() * dtype.size()];
    float::from_f32(dtype, values, &mut bytes).unwrap();
    let mut rounded = vec![0.0; values.len()];
    float::to_f32(dtype, &bytes, &mut rounded).unwrap();
    rounded
}

/// FNV-1a of the values as bytes of `dtype`.
pub fn hash(values: &[f32], dtype: DType) -> u64 {
    let mut bytes = vec![0; values.len() * dtype.size()];
    float::from_f32(dtype, values, &mut bytes).unwrap();
    bytes.iter().fold(0xcbf29ce484222325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100000001b3))
}

/// Encodes all rows at once, or cut at `cuts`, in both cases after the pass that some schemes need.
pub fn encode_cut(scheme: SchemeRef, values: &[f32], columns: usize, float: DType, cuts: &[usize]) -> Vec<Vec<u8>> {
    let packing = Packing { scheme, float };
    let rows = values.len() / columns;
    let sizes = packing.plane_bytes(&[rows, columns]).unwrap();
    let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xa5; *n as usize]).collect();
    let parts = ranges(rows, cuts);
    let values = |rows: &Range<usize>| &values[rows.start * columns..rows.end * columns];
    let tally = parts.iter().map(|p| scheme.tally(values(p), columns, float)).fold(Tally::default(), Tally::merge);
    scheme.begin(&tally, &mut planes.iter_mut().map(|p| &mut p[..]).collect::<Vec<_>>());
    for part in &parts {
        let mut slices = Vec::new();
        let places = packing.plane_ranges(columns, part.start, part.len()).unwrap();
        for (plane, (start, length)) in planes.iter_mut().zip(places) {
            slices.push(&mut plane[start as usize..(start + length) as usize]);
        }
        scheme.encode(values(part), columns, None, float, &mut slices).unwrap();
    }
    planes
}

pub fn encode(scheme: SchemeRef, values: &[f32], columns: usize, float: DType) -> Vec<Vec<u8>> {
    encode_cut(scheme, values, columns, float, &[])
}

pub fn decode_cut(
    scheme: SchemeRef,
    planes: &[Vec<u8>],
    (count, columns): (usize, usize),
    float: DType,
    cuts: &[usize],
) -> Vec<f32> {
    let packing = Packing { scheme, float };
    let mut values = vec![f32::NAN; count];
    for part in ranges(count / columns, cuts) {
        let places = packing.plane_ranges(columns, part.start, part.len()).unwrap();
        let cut = |(plane, (start, length)): (&'_ Vec<u8>, (u64, u64))| {
            plane[start as usize..(start + length) as usize].to_vec()
        };
        let owned: Vec<Vec<u8>> = planes.iter().zip(places).map(cut).collect();
        let slices: Vec<&[u8]> = owned.iter().map(|p| &p[..]).collect();
        scheme.decode(&slices, columns, float, &mut values[part.start * columns..part.end * columns]).unwrap();
    }
    values
}

pub fn decode(scheme: SchemeRef, planes: &[Vec<u8>], count: usize, columns: usize, float: DType) -> Vec<f32> {
    decode_cut(scheme, planes, (count, columns), float, &[])
}

fn ranges(rows: usize, cuts: &[usize]) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    starts.zip(cuts.iter().copied().chain([rows])).map(|(a, b)| a..b).collect()
}

pub fn assert_same(label: &str, found: &[f32], expected: &[f32]) {
    assert!(found.len() >= expected.len(), "{label}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{label}, value {i}: {a:e}, not {b:e}");
    }
}

pub fn assert_bytes(label: &str, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "{label}");
    assert_eq!(found.iter().zip(expected).position(|(a, b)| a != b), None, "{label}: first byte that differs");
}

/// Relative root mean square error on normal values, for each float type.
pub fn errors(scheme: SchemeRef, columns: usize) -> [f32; 3] {
    let values = normal(64 * 1024 / columns * columns);
    [DType::F32, DType::F16, DType::BF16].map(|float| {
        let planes = encode(scheme, &values, columns, float);
        let decoded = decode(scheme, &planes, values.len(), columns, float);
        let error: f64 = values.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let power: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        (error / power).sqrt() as f32
    })
}

/// Refusals that every scheme makes: types, lengths and numbers of planes.
pub fn assert_refuses(scheme: SchemeRef, columns: usize) {
    let refused = |planes: &mut Vec<Vec<u8>>, count: usize, columns: usize, float| {
        let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
        let encoded = scheme.encode(&vec![1.0; count], columns, None, float, &mut slices);
        let slices: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
        let decoded = scheme.decode(&slices, columns, float, &mut vec![0.0; count]);
        encoded.is_err() && decoded.is_err()
    };
    let mut planes = encode(scheme, &vec![1.0; 2 * columns], columns, DType::F16);
    assert!(!refused(&mut planes, 2 * columns, columns, DType::F16), "{scheme:?}");
    assert!(refused(&mut planes, 2 * columns, 0, DType::F16), "{scheme:?}");
    assert!(refused(&mut planes, columns, columns, DType::F16), "{scheme:?}");
    assert!(refused(&mut planes, 2 * columns, columns, DType::F64), "{scheme:?}");
    planes[0].pop();
    assert!(refused(&mut planes, 2 * columns, columns, DType::F16), "{scheme:?}");
    planes.pop();
    assert!(refused(&mut planes, 2 * columns, columns, DType::F16), "{scheme:?}");
}

/// Values and planes that no honest file has give some result and no panic.
pub fn assert_survives(scheme: SchemeRef, columns: usize) {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX, f32::MIN_POSITIVE / 2.0] {
        for float in [DType::F32, DType::F16, DType::BF16] {
            let mut values = vec![0.5; 2 * columns];
            values[3] = value;
            values[columns..].fill(value);
            let planes = encode(scheme, &values, columns, float);
            decode(scheme, &planes, values.len(), columns, float);
        }
    }
    let sizes = Packing { scheme, float: DType::F16 }.plane_bytes(&[2, columns]).unwrap();
    let planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xff; *n as usize]).collect();
    decode(scheme, &planes, 2 * columns, columns, DType::F16);
}

/// Stored arrays in memory.
pub struct Memory(pub Vec<RefCell<Vec<u8>>>);

impl Memory {
    /// Zeroes for everything that the arrangement has.
    pub fn new(arrangement: &ArrangementRef, packing: &Packing, shape: &[usize]) -> Self {
        let arrays = arrangement.arrays(packing, shape).unwrap();
        let size = |a: &Array| a.shape.iter().product::<usize>() * a.dtype.size();
        Memory(arrays.iter().map(|a| RefCell::new(vec![0; size(a)])).collect())
    }
}

impl Stored for Memory {
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.0[array].borrow();
        buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn write(&self, array: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0[array].borrow_mut()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Writes planes cut at `cuts` in an unusual order and one part twice; returns the arrays.
pub fn scatter(
    arrangement: &ArrangementRef,
    packing: &Packing,
    shape: &[usize; 2],
    planes: &[Vec<u8>],
    cuts: &[usize],
) -> Memory {
    let memory = Memory::new(arrangement, packing, shape);
    let mut parts = ranges(shape[0], cuts);
    parts.reverse();
    parts.push(parts[0].clone());
    for part in parts {
        let places = packing.plane_ranges(shape[1], part.start, part.len()).unwrap();
        let cut = planes.iter().zip(places).map(|(p, (start, length))| &p[start as usize..][..length as usize]);
        arrangement.scatter(packing, shape, part.clone(), &cut.collect::<Vec<_>>(), &memory).unwrap();
    }
    memory
}

/// Reads planes back, cut at `cuts`.
pub fn gather(
    arrangement: &ArrangementRef,
    packing: &Packing,
    shape: &[usize; 2],
    memory: &Memory,
    cuts: &[usize],
) -> Vec<Vec<u8>> {
    let sizes = packing.plane_bytes(shape).unwrap();
    let mut planes: Vec<Vec<u8>> = sizes.iter().map(|n| vec![0xa5; *n as usize]).collect();
    for part in ranges(shape[0], cuts) {
        let places = packing.plane_ranges(shape[1], part.start, part.len()).unwrap();
        let cut = planes.iter_mut().zip(places).map(|(p, (start, length))| &mut p[start as usize..][..length as usize]);
        arrangement.gather(packing, shape, part.clone(), memory, &mut cut.collect::<Vec<_>>()).unwrap();
    }
    planes
}

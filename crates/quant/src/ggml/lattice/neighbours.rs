//! Lattices for encoders: the number of each point, and for codes that are no point the points nearest to them.
//!
//! A key holds the codes of all coordinates, the first in the lowest bits: 2 bits each for eight coordinates, 3 for four.

use std::collections::BTreeSet;

/// Lists are padded to whole chunks, so that a search needs no remainder.
pub(super) const CHUNK: usize = 16;

/// Points of `DIM` coordinates.
pub(super) struct Lattice<const DIM: usize> {
    /// Number of a point, by key.
    numbers: Vec<u16>,
    /// Start and length in `near` of the points nearest to a key. A point is the only one near itself.
    spans: Vec<(u32, u32)>,
    /// Keys of points.
    near: Vec<u16>,
}

/// Bits of a code.
pub(super) const fn code_bits(dim: usize) -> usize {
    if dim == 8 { 2 } else { 3 }
}

/// The code of a coordinate.
#[inline(always)]
pub(super) fn code<const DIM: usize>(key: u32, coordinate: usize) -> u32 {
    key >> (code_bits(DIM) * coordinate) & ((1 << code_bits(DIM)) - 1)
}

impl<const DIM: usize> Lattice<DIM> {
    /// For each combination of codes that is no point: all points at the `shells` smallest distances from it, nearest first,
    /// those equally near in the order of `points`.
    pub fn new<T: Copy + Ord>(points: &[[T; DIM]], shells: usize) -> Self {
        let levels: BTreeSet<T> = points.iter().flatten().copied().collect();
        let codes = |point: &[T; DIM]| point.map(|c| levels.range(..c).count() as u8);
        let points: Vec<[u8; DIM]> = points.iter().map(codes).collect();
        let keys = 1 << (code_bits(DIM) * DIM);
        let mut lattice = Self { numbers: vec![0; keys], spans: vec![(0, 0); keys], near: Vec::new() };
        for (number, point) in points.iter().enumerate() {
            let key = key(point);
            lattice.numbers[key] = number as u16;
            lattice.spans[key] = (lattice.near.len() as u32, 1);
            lattice.near.push(key as u16);
        }
        let mut distances = vec![0; points.len()];
        let mut place = [0; DIM];
        loop {
            if lattice.spans[key(&place)].1 == 0 {
                lattice.surround(&place, &points, &mut distances, shells);
            }
            let Some(i) = place.iter().position(|c| usize::from(*c) + 1 < levels.len()) else {
                return lattice;
            };
            place[i] += 1;
            place[..i].fill(0);
        }
    }

    /// Lists the points nearest to a place.
    fn surround(&mut self, place: &[u8; DIM], points: &[[u8; DIM]], distances: &mut [u8], shells: usize) {
        let mut present = [false; 256];
        for (distance, point) in distances.iter_mut().zip(points) {
            // At most 4 * 7 * 7.
            *distance = place.iter().zip(point).map(|(a, b)| a.abs_diff(*b) * a.abs_diff(*b)).sum();
            present[usize::from(*distance)] = true;
        }
        let shells = (0..=255u8).filter(|d| present[usize::from(*d)]).take(shells);
        let start = self.near.len();
        for shell in shells {
            let inside = distances.iter().zip(points).filter(|(distance, _)| **distance == shell);
            self.near.extend(inside.map(|(_, point)| key(point) as u16));
        }
        let count = self.near.len() - start;
        self.spans[key(place)] = (start as u32, count as u32);
        let last = self.near[start + count - 1];
        self.near.resize(start + count.next_multiple_of(CHUNK), last);
    }

    /// Keys of the points nearest to codes; their own key alone if they are a point.
    #[inline(always)]
    pub fn near(&self, key: u32) -> &[u16] {
        let (start, count) = self.spans[key as usize];
        &self.near[start as usize..][..count as usize]
    }

    /// The same in whole chunks, whose rest repeats the last. Only for codes that are no point.
    #[inline(always)]
    pub fn near_chunks(&self, key: u32) -> &[[u16; CHUNK]] {
        let (start, count) = self.spans[key as usize];
        self.near[start as usize..][..(count as usize).next_multiple_of(CHUNK)].as_chunks().0
    }

    #[inline(always)]
    pub fn is_point(&self, key: u32) -> bool {
        self.near[self.spans[key as usize].0 as usize] == key as u16
    }

    /// The number of a point.
    #[inline(always)]
    pub fn number(&self, key: u32) -> u16 {
        self.numbers[key as usize]
    }
}

fn key<const DIM: usize>(codes: &[u8; DIM]) -> usize {
    codes.iter().rev().fold(0, |key, code| key << code_bits(DIM) | usize::from(*code))
}

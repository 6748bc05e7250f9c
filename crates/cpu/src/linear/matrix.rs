//! Many rows of activations: a panel of weights is unpacked into the cache once and used for all of them.
//!
//! A panel is two vectors of rows wide and up to [`CHUNK`] columns long: 32 KiB of codes, which stay in the first cache
//! while tiles of activations stream by. A tile has as many rows as registers allow.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use super::activations::{Activations, Form, SUMMED};
use super::ahead::Ahead;
use super::apart::Fill;
use super::codes::{Codes, Sink};
use super::{Output, PANEL, Rows};
use crate::isa::{Kernel, dispatch};
use crate::simd::{Simd, transpose};
use crate::span::Span;

/// Columns of a panel; a multiple of 256.
const CHUNK: usize = 1024;

/// The same for a few rows of activations: what is unpacked is used at once, and stays in the first cache until then.
const SMALL_CHUNK: usize = 512;

/// Groups have 16 values or more.
const MOST_GROUPS: usize = CHUNK / 16;

/// Tiles of activations whose sums a thread adds up at a time.
const TILES: usize = 8;

/// Bytes of a line of a cache.
const LINE: usize = 64;

/// Bytes of a vector of the widest level.
const VECTOR: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Option<Box<Panel>>> = const { RefCell::new(None) };
}

/// Unpacked weights. With `v` bytes to a vector: codes `[column / 4][2][v]`, scales and minima `[group][2][v / 4]`.
#[repr(align(64))]
struct Panel {
    codes: [u8; CHUNK / 4 * 2 * VECTOR],
    scales: [f32; MOST_GROUPS * PANEL],
    mins: [f32; MOST_GROUPS * PANEL],
}

pub(super) fn apply<C: Codes>(weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    let sums = Sums::new::<C>(x, session);
    // The panel that this thread takes next, if all are equally fast.
    let ahead = PANEL * session.threads();
    let run = |rows: Range<usize>, next: usize| {
        let mut panel = SCRATCH.take().unwrap_or_else(|| {
            Box::new(Panel {
                codes: [0; CHUNK / 4 * 2 * VECTOR],
                scales: [0.0; MOST_GROUPS * PANEL],
                mins: [0.0; MOST_GROUPS * PANEL],
            })
        });
        let panel_of_thread = &mut panel;
        let product =
            Product::<C> { weights, x, y, sums: &sums, rows, next, ahead, panel: panel_of_thread, codes: PhantomData };
        // SAFETY: the level is this machine's; sizes were checked; ranges of rows are disjoint.
        unsafe { dispatch(x.level, product) };
        SCRATCH.set(Some(panel));
    };
    if x.height == 1 {
        session.spread(y.rows, PANEL, &run);
    } else {
        session.balance(y.rows, PANEL, &|rows| run(rows, y.rows));
    }
}

/// Sums of activations by groups of the scheme, in the layout of the scales.
struct Sums {
    /// Times the offset of codes: what sums of products start from.
    starts: Vec<i32>,
    /// As floats, with the scale if that is per 32: what minima are multiplied with.
    floats: Vec<f32>,
}

impl Sums {
    fn new<C: Codes>(x: &Activations, session: &Session<'_>) -> Sums {
        let per_tile = x.columns / C::GROUP * x.height;
        let size = x.tiles() * per_tile;
        let mut sums = Sums { starts: vec![0; size], floats: vec![0.0; if C::MINS { size } else { 0 }] };
        let (starts, floats) = (Span::of(&mut sums.starts), Span::of(&mut sums.floats));
        session.split(x.tiles(), TILES, &|tiles| {
            let range = tiles.start * per_tile..tiles.end * per_tile;
            // SAFETY: ranges of tiles are disjoint.
            let starts = unsafe { starts.part(range.clone()) };
            // SAFETY: as above.
            let floats = if C::MINS { unsafe { floats.part(range) } } else { &mut [] };
            add_up::<C>(x, tiles.start * (x.columns / C::GROUP), starts, floats);
        });
        sums
    }
}

/// Sums of groups from `first` on.
fn add_up<C: Codes>(x: &Activations, first: usize, starts: &mut [i32], floats: &mut [f32]) {
    let (pieces, height, per_scale) = (C::GROUP / SUMMED, x.height, C::FORM.group() / C::GROUP);
    for (i, starts) in starts.chunks_exact_mut(height).enumerate() {
        let group = first + i;
        let sums = &x.sums[group * pieces * height..(group + 1) * pieces * height];
        starts.fill(0);
        for sums in sums.chunks_exact(height) {
            starts.iter_mut().zip(sums).for_each(|(start, sum)| *start += sum);
        }
        if C::MINS {
            let units = &x.scales[group / per_scale * height..][..height];
            for ((float, sum), unit) in floats[i * height..].iter_mut().zip(&*starts).zip(units) {
                *float = if C::FORM == Form::Bytes256 { 1.0 } else { *unit } * *sum as f32;
            }
        }
        starts.iter_mut().for_each(|start| *start *= -C::OFFSET);
    }
}

struct Product<'a, C> {
    weights: &'a Rows<'a>,
    x: &'a Activations,
    y: &'a Output,
    sums: &'a Sums,
    rows: Range<usize>,
    /// The row that this thread is likely to go on with; the number of rows where none is known.
    next: usize,
    /// From a row of weights to one that is needed next.
    ahead: usize,
    panel: &'a mut Panel,
    codes: PhantomData<C>,
}

impl<C: Codes> Kernel for Product<'_, C> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let few = self.x.height == 1;
        let most = if few { SMALL_CHUNK } else { CHUNK };
        for first in self.rows.clone().step_by(2 * S::ROWS) {
            let mut ahead = few.then(|| self.ahead::<S>(first));
            for chunk in (0..self.x.columns).step_by(most) {
                let columns = chunk..self.x.columns.min(chunk + most);
                // SAFETY: rows and columns exist; promises of `apply`.
                unsafe {
                    S::call(Unpack { product: &mut self, first, columns: columns.clone(), ahead: &mut ahead });
                    for tile in 0..self.x.tiles() {
                        if !few {
                            self.ask_ahead::<S>(first, chunk, tile);
                        }
                        self.tile::<S>(first, &columns, tile);
                    }
                }
            }
        }
    }
}

/// Fills the panel with `2 * S::ROWS` rows.
struct Unpack<'a, 'b, C> {
    product: &'a mut Product<'b, C>,
    first: usize,
    columns: Range<usize>,
    /// Weights that are asked for meanwhile.
    ahead: &'a mut Option<Ahead>,
}

impl<C: Codes> Kernel for Unpack<'_, '_, C> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Product { weights, panel, .. } = self.product;
        for half in 0..2 {
            // SAFETY: the tile lies in the weights, and columns are whole blocks that fit the panel.
            unsafe {
                let mut at = weights.at(self.first + half * S::ROWS, S::ROWS);
                at = at.add(self.columns.start / C::BLOCK * C::BYTES);
                let scales = panel.scales.as_mut_ptr().add(half * S::ROWS);
                let mins = panel.mins.as_mut_ptr().add(half * S::ROWS);
                let mut sink = Expand::<S> {
                    codes: panel.codes.as_mut_ptr().add(half * 4 * S::ROWS),
                    scales: (!C::APART).then_some(scales),
                    mins: (C::MINS && !C::APART).then_some(mins),
                    level: PhantomData,
                };
                for _ in 0..self.columns.len() / C::BLOCK {
                    if let Some(ahead) = &mut *self.ahead {
                        ahead.step::<S>();
                    }
                    C::unpack::<S>(at, weights.stride, &mut sink);
                    at = at.add(C::BYTES);
                }
                if let (true, Some(apart)) = (C::APART, &weights.apart) {
                    let (first, columns) = (self.first + half * S::ROWS, &self.columns);
                    S::call(Fill { apart, first, columns, unit: C::GROUP, scales, mins });
                }
            }
        }
    }
}

/// Writes groups one behind another into one half of a panel.
struct Expand<S> {
    codes: *mut u8,
    scales: Option<*mut f32>,
    mins: Option<*mut f32>,
    level: PhantomData<S>,
}

impl<S: Simd> Sink<S> for Expand<S> {
    #[inline(always)]
    unsafe fn take<const N: usize>(&mut self, _group: usize, codes: [[S::I; 4]; N], scale: S::F, min: S::F) {
        // SAFETY: the panel has room for all groups of its columns.
        unsafe {
            for piece in codes {
                for words in transpose::<S>(piece) {
                    S::store(self.codes, words);
                    self.codes = self.codes.add(2 * 4 * S::ROWS);
                }
            }
            if let Some(scales) = &mut self.scales {
                S::store_float(*scales, scale);
                *scales = scales.add(2 * S::ROWS);
            }
            if let Some(mins) = &mut self.mins {
                S::store_float(*mins, min);
                *mins = mins.add(2 * S::ROWS);
            }
        }
    }
}

impl<C: Codes> Product<'_, C> {
    /// What to ask for while the panel of rows from `first` on is unpacked, a block at a time.
    #[inline(always)]
    fn ahead<S: Simd>(&self, first: usize) -> Ahead {
        let after = first + 2 * S::ROWS;
        let next = if after < self.rows.end { after } else { self.next };
        let next = if next < self.y.rows { next } else { first };
        let at = self.weights.at(next, 2 * S::ROWS);
        Ahead::new(at, 2 * S::ROWS * self.weights.stride, 2 * (self.x.columns / C::BLOCK))
    }

    /// Asks for this tile's share of the weights that are needed after those from row `first` on, into the second cache.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn ask_ahead<S: Simd>(&self, first: usize, chunk: usize, tile: usize) {
        let (next, chunks) = (first + self.ahead, self.x.columns.div_ceil(CHUNK));
        if next + 2 * S::ROWS > self.weights.whole {
            return;
        }
        let (steps, step) = (chunks * self.x.tiles(), chunk / CHUNK * self.x.tiles() + tile);
        let lines = (2 * S::ROWS * self.weights.stride).div_ceil(LINE);
        let at = self.weights.at(next, 2 * S::ROWS);
        for line in lines * step / steps..lines * (step + 1) / steps {
            // SAFETY: prefetches may name any address; the caller's promise.
            unsafe { S::prefetch_far(at.wrapping_add(LINE * line)) };
        }
    }

    /// One tile of activations times the panel.
    ///
    /// # Safety
    /// The panel holds `2 * S::ROWS` rows from `first` on, in these columns; promises of `apply`.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, first: usize, columns: &Range<usize>, tile: usize) {
        let (x, height, scale) = (self.x, self.x.height, C::FORM.group());
        let word = (tile * x.columns + columns.start) / 4 * height;
        let group = (tile * x.columns + columns.start) / C::GROUP * height;
        let rows = height.min(x.rows - tile * height);
        let width = (2 * S::ROWS).min(self.y.rows - first);
        let whole = rows == height && width == 2 * S::ROWS;
        let mut local = [[0.0f32; PANEL]; 8];
        // SAFETY: the tile exists in the activations and its results in the output; a tile that is cut at an edge goes
        // through `local`, which has room for the highest.
        unsafe {
            let direct = self.y.at(tile * height, first);
            if !whole && columns.start > 0 {
                for (m, row) in local.iter_mut().enumerate().take(rows) {
                    direct.add(m * self.y.rows).copy_to_nonoverlapping(row.as_mut_ptr(), width);
                }
            }
            let arguments = Arguments {
                groups: columns.len() / C::GROUP,
                codes: self.panel.codes.as_ptr(),
                scales: self.panel.scales.as_ptr(),
                mins: self.panel.mins.as_ptr(),
                values: x.values.as_ptr().add(word),
                starts: self.sums.starts.as_ptr().add(group),
                sums: if C::MINS { self.sums.floats.as_ptr().add(group) } else { std::ptr::null() },
                units: x.scales.as_ptr().add((tile * x.columns + columns.start) / scale * height),
                results: if whole { direct } else { local.as_mut_ptr().cast() },
                stride: if whole { self.y.rows } else { PANEL },
                new: columns.start == 0,
            };
            multiply::<S, C>(height, arguments);
            if !whole {
                for (m, row) in local.iter().enumerate().take(rows) {
                    row.as_ptr().copy_to_nonoverlapping(direct.add(m * self.y.rows), width);
                }
            }
        }
    }
}

/// Where one product of a tile and a panel finds everything.
#[derive(Clone, Copy)]
struct Arguments {
    groups: usize,
    codes: *const u8,
    scales: *const f32,
    mins: *const f32,
    values: *const u32,
    starts: *const i32,
    sums: *const f32,
    units: *const f32,
    results: *mut f32,
    /// From one row of results to the next.
    stride: usize,
    /// Whether results are set, not added to.
    new: bool,
}

/// # Safety
/// The arguments fit a tile of `height` rows, at most 7.
#[inline(always)]
unsafe fn multiply<S: Simd, C: Codes>(height: usize, arguments: Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        match height {
            1 => by_kind::<S, C, 1>(arguments),
            2 => by_kind::<S, C, 2>(arguments),
            3 => by_kind::<S, C, 3>(arguments),
            4 => by_kind::<S, C, 4>(arguments),
            5 => by_kind::<S, C, 5>(arguments),
            6 => by_kind::<S, C, 6>(arguments),
            _ => by_kind::<S, C, 7>(arguments),
        }
    }
}

/// Kernels depend on few properties of a scheme: schemes share them.
///
/// # Safety
/// As for `multiply`.
#[inline(always)]
unsafe fn by_kind<S: Simd, C: Codes, const M: usize>(a: Arguments) {
    if M > S::TILE {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match (C::FORM, C::GROUP, C::MINS) {
            (Form::Bytes256, 16, false) => by_width::<S, C, M, 16, 4, false>(a),
            (Form::Bytes256, 16, true) => by_width::<S, C, M, 16, 4, true>(a),
            (Form::Bytes256, _, false) => by_width::<S, C, M, 8, 8, false>(a),
            (Form::Bytes256, _, true) => by_width::<S, C, M, 8, 8, true>(a),
            (Form::Bytes16, _, false) => by_width::<S, C, M, 1, 4, false>(a),
            (Form::Bytes16, _, true) => by_width::<S, C, M, 1, 4, true>(a),
            (_, _, false) => by_width::<S, C, M, 1, 8, false>(a),
            (_, _, true) => by_width::<S, C, M, 1, 8, true>(a),
        }
    }
}

/// # Safety
/// As for `multiply`.
#[inline(always)]
unsafe fn by_width<S: Simd, C: Codes, const M: usize, const SHARED: usize, const WORDS: usize, const MINS: bool>(
    a: Arguments,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if C::WIDE {
            S::call(Micro::<M, SHARED, WORDS, MINS, true>(a));
        } else {
            S::call(Micro::<M, SHARED, WORDS, MINS, false>(a));
        }
    }
}

/// `M` rows of activations times two vectors of weight rows. `SHARED` groups of weights, of `WORDS` words each, share a
/// scale of activations.
struct Micro<const M: usize, const SHARED: usize, const WORDS: usize, const MINS: bool, const WIDE: bool>(Arguments);

impl<const M: usize, const SHARED: usize, const WORDS: usize, const MINS: bool, const WIDE: bool> Kernel
    for Micro<M, SHARED, WORDS, MINS, WIDE>
{
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the arguments fit the tile.
        unsafe { if SHARED == 1 { self.each_scaled::<S>() } else { self.scaled_together::<S>() } }
    }
}

impl<const M: usize, const SHARED: usize, const WORDS: usize, const MINS: bool, const WIDE: bool>
    Micro<M, SHARED, WORDS, MINS, WIDE>
{
    /// Every group has its scale of activations: totals stay in registers.
    ///
    /// # Safety
    /// The arguments fit the tile.
    #[inline(always)]
    unsafe fn each_scaled<S: Simd>(self) {
        let mut a = self.0;
        // SAFETY: pointers advance by a group each time, as many times as there are groups.
        unsafe {
            let mut totals = if a.new { [[S::zero(); 2]; M] } else { load::<S, M>(&a) };
            for _ in 0..a.groups {
                let dots = dots::<S, M, WORDS, WIDE>(&a);
                for n in 0..2 {
                    let scale = S::load_float(a.scales.add(n * S::ROWS));
                    for m in 0..M {
                        let scale = S::mul(scale, S::splat(*a.units.add(m)));
                        totals[m][n] = S::fma(S::to_float(dots[m][n]), scale, totals[m][n]);
                    }
                    if MINS {
                        let min = S::load_float(a.mins.add(n * S::ROWS));
                        for (m, row) in totals.iter_mut().enumerate() {
                            row[n] = S::fma(min, S::splat(*a.sums.add(m)), row[n]);
                        }
                    }
                }
                a.units = a.units.add(M);
                advance::<S, M, WORDS, MINS>(&mut a);
            }
            for (m, totals) in totals.iter().enumerate() {
                for (n, total) in totals.iter().enumerate() {
                    S::store_float(a.results.add(m * a.stride + n * S::ROWS), *total);
                }
            }
        }
    }

    /// Several groups share a scale of activations: their sum is in registers, totals are in the first cache.
    ///
    /// # Safety
    /// The arguments fit the tile.
    #[inline(always)]
    unsafe fn scaled_together<S: Simd>(self) {
        let mut a = self.0;
        // SAFETY: pointers advance by a group each time, as many times as there are groups.
        unsafe {
            for _ in 0..a.groups / SHARED {
                let mut sums = [[S::zero(); 2]; M];
                for _ in 0..SHARED {
                    let dots = dots::<S, M, WORDS, WIDE>(&a);
                    for n in 0..2 {
                        let scale = S::load_float(a.scales.add(n * S::ROWS));
                        for m in 0..M {
                            sums[m][n] = S::fma(S::to_float(dots[m][n]), scale, sums[m][n]);
                        }
                        if MINS {
                            let min = S::load_float(a.mins.add(n * S::ROWS));
                            for (m, row) in sums.iter_mut().enumerate() {
                                row[n] = S::fma(min, S::splat(*a.sums.add(m)), row[n]);
                            }
                        }
                    }
                    advance::<S, M, WORDS, MINS>(&mut a);
                }
                for (m, sums) in sums.iter().enumerate() {
                    let unit = S::splat(*a.units.add(m));
                    for (n, sum) in sums.iter().enumerate() {
                        let total = a.results.add(m * a.stride + n * S::ROWS);
                        let before = if a.new { S::zero() } else { S::load_float(total) };
                        S::store_float(total, S::fma(*sum, unit, before));
                    }
                }
                a.new = false;
                a.units = a.units.add(M);
            }
        }
    }
}

/// Sums of products of one group.
///
/// # Safety
/// The arguments have a group left.
#[inline(always)]
unsafe fn dots<S: Simd, const M: usize, const WORDS: usize, const WIDE: bool>(a: &Arguments) -> [[S::I; 2]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut dots = [[S::splat32(0); 2]; M];
        for (m, dots) in dots.iter_mut().enumerate() {
            let start = S::splat32(*a.starts.add(m));
            *dots = [start, start];
        }
        for word in 0..WORDS {
            let at = a.codes.add(word * 2 * 4 * S::ROWS);
            let codes = [S::load(at), S::load(at.add(4 * S::ROWS))];
            for (m, dots) in dots.iter_mut().enumerate() {
                let x = S::splat32(*a.values.add(word * M + m) as i32);
                dots[0] = S::dot::<WIDE>(dots[0], codes[0], x);
                dots[1] = S::dot::<WIDE>(dots[1], codes[1], x);
            }
        }
        dots
    }
}

/// To the next group.
///
/// # Safety
/// The arguments have a group left.
#[inline(always)]
unsafe fn advance<S: Simd, const M: usize, const WORDS: usize, const MINS: bool>(a: &mut Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        a.codes = a.codes.add(WORDS * 2 * 4 * S::ROWS);
        a.scales = a.scales.add(2 * S::ROWS);
        a.values = a.values.add(WORDS * M);
        a.starts = a.starts.add(M);
        if MINS {
            a.mins = a.mins.add(2 * S::ROWS);
            a.sums = a.sums.add(M);
        }
    }
}

/// # Safety
/// The results of the tile are readable.
#[inline(always)]
unsafe fn load<S: Simd, const M: usize>(a: &Arguments) -> [[S::F; 2]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut totals = [[S::zero(); 2]; M];
        for (m, totals) in totals.iter_mut().enumerate() {
            for (n, total) in totals.iter_mut().enumerate() {
                *total = S::load_float(a.results.add(m * a.stride + n * S::ROWS));
            }
        }
        totals
    }
}

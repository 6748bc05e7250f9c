//! Random numbers by counting: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! Block `n` of a seed is a function of the two, so that any device can compute any part of a sequence: words, integers
//! and uniforms are equal bit for bit everywhere. Each call uses whole blocks: element `i` of a fill with `N` values per
//! block comes from block `counter + i / N`, whatever the number of threads.

mod normal;

use rayon::prelude::*;

use crate::Error;

/// Four words: what one step of the counter gives.
pub type Block = [u32; 4];

/// A sequence of random numbers and the place in it. All of its state is the seed and the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Philox {
    seed: u64,
    counter: u128,
}

impl Philox {
    /// The first sequence of `seed`, at its beginning.
    pub fn new(seed: u64) -> Self {
        Self::at(seed, 0)
    }

    /// The sequence of `seed` at block `counter`.
    pub fn at(seed: u64, counter: u128) -> Self {
        Self { seed, counter }
    }

    /// Sequence `index` of this seed, at its beginning: 2^64 blocks that no other of the 2^64 sequences shares.
    pub fn sequence(&self, index: u64) -> Self {
        Self::at(self.seed, u128::from(index) << 64)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of the next block.
    pub fn counter(&self) -> u128 {
        self.counter
    }

    /// The state for a checkpoint: seed, low and high half of the counter.
    pub fn to_words(&self) -> [u64; 3] {
        [self.seed, self.counter as u64, (self.counter >> 64) as u64]
    }

    /// The state that [`Philox::to_words`] gave.
    pub fn from_words([seed, low, high]: [u64; 3]) -> Self {
        Self::at(seed, u128::from(high) << 64 | u128::from(low))
    }

    /// Skips `blocks` blocks, at no cost.
    pub fn jump(&mut self, blocks: u128) {
        self.counter = self.counter.wrapping_add(blocks);
    }

    /// The next block.
    pub fn block(&mut self) -> Block {
        let [[a], [b], [c], [d]] = words::<1>(self.seed, self.counter);
        self.jump(1);
        [a, b, c, d]
    }

    /// One value in `[0, 1)`, with 24 bits. Uses a block.
    pub fn uniform(&mut self) -> f32 {
        unit_f32(self.block()[0])
    }

    /// One value in `[0, 1)`, with 53 bits. Uses a block.
    pub fn uniform_f64(&mut self) -> f64 {
        let [low, high, ..] = self.block();
        unit_f64(low, high)
    }

    /// One integer in `0..bound`; 0 if `bound` is 0. Uses a block: no value is preferred by more than 2^-64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let [a, b, c, d] = self.block().map(u64::from);
        let (low, high) = (u128::from(a | b << 32), u128::from(c | d << 32));
        ((high * u128::from(bound) + ((low * u128::from(bound)) >> 64)) >> 64) as u64
    }

    /// Fills with words; four per block.
    pub fn fill_words(&mut self, out: &mut [u32]) {
        self.fill(out, |block| block);
    }

    /// Fills with values in `[0, 1)`, multiples of 2^-24; four per block.
    pub fn fill_uniform(&mut self, out: &mut [f32]) {
        self.fill(out, |block| block.map(unit_f32));
    }

    /// Fills with values in `[0, 1)`, multiples of 2^-53; two per block.
    pub fn fill_uniform_f64(&mut self, out: &mut [f64]) {
        self.fill(out, |[a, b, c, d]| [unit_f64(a, b), unit_f64(c, d)]);
    }

    /// Fills with integers in `low..high`; two per block. No value is preferred by more than `(high - low) / 2^64`. An
    /// error if the range is empty.
    pub fn fill_integers(&mut self, out: &mut [i64], low: i64, high: i64) -> Result<(), Error> {
        if low >= high {
            return Err(Error::Argument(format!("random integers from {low} up to, not including, {high}: none")));
        }
        let span = u128::from(high.wrapping_sub(low) as u64);
        let pick = |a: u32, b: u32| {
            let word = u128::from(a) | u128::from(b) << 32;
            low.wrapping_add(((word * span) >> 64) as i64)
        };
        self.fill(out, |[a, b, c, d]| [pick(a, b), pick(c, d)]);
        Ok(())
    }

    /// Fills with normal values of mean 0 and deviation 1 by Box and Muller's transformation; four per block. Up to 5.8
    /// in size. Computed without the system's mathematics library, so that every processor gives the same bits.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        self.fill_groups(out, normal::four);
    }

    /// As [`Philox::fill_normal`] in double precision; two per block. Up to 8.6 in size.
    pub fn fill_normal_f64(&mut self, out: &mut [f64]) {
        self.fill(out, normal::two);
    }

    /// Fills with `true` where an event of this probability, in steps of 2^-32, comes about; four per block. An error if
    /// `probability` is not in `[0, 1]`.
    pub fn fill_bernoulli(&mut self, out: &mut [bool], probability: f64) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(Error::Argument(format!("a probability lies between 0 and 1, found {probability}")));
        }
        let threshold = (probability * 2f64.powi(32)).round() as u64;
        self.fill(out, |block| block.map(|word| u64::from(word) < threshold));
        Ok(())
    }

    /// Brings `items` into random order (Fisher and Yates); a block for each but the first.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// The numbers `0..length` in random order.
    pub fn permutation(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        self.shuffle(&mut order);
        order
    }

    /// Fills `out` with the `N` values that `values` makes of each block.
    fn fill<T: Send + Copy, const N: usize>(&mut self, out: &mut [T], values: impl Fn(Block) -> [T; N] + Sync) {
        self.fill_groups(out, |words: &Words| {
            std::array::from_fn(|lane| values([words[0][lane], words[1][lane], words[2][lane], words[3][lane]]))
        });
    }

    /// Fills `out` with the `N` values of each block, a group of blocks at a time, in parallel where that pays.
    fn fill_groups<T: Send + Copy, const N: usize>(
        &mut self,
        out: &mut [T],
        values: impl Fn(&Words) -> [[T; N]; LANES] + Sync,
    ) {
        let (start, used) = (*self, out.len().div_ceil(N) as u128);
        if out.len() <= N * PIECE {
            start.fill_piece(out, &values);
        } else {
            out.par_chunks_mut(N * PIECE).enumerate().for_each(|(index, piece)| {
                let mut here = start;
                here.jump((index * PIECE) as u128);
                here.fill_piece(piece, &values);
            });
        }
        self.jump(used);
    }

    fn fill_piece<T: Copy, const N: usize>(mut self, out: &mut [T], values: &impl Fn(&Words) -> [[T; N]; LANES]) {
        for group in out.chunks_mut(N * LANES) {
            let values = values(&words(self.seed, self.counter));
            group.copy_from_slice(&values.as_flattened()[..group.len()]);
            self.jump(LANES as u128);
        }
    }
}

/// Blocks that are computed side by side, for the vector unit.
const LANES: usize = 8;
/// Blocks of one task of a parallel fill.
const PIECE: usize = 16 * 1024;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by in each round: the golden ratio and the square root of 3, less 1.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The first words of [`LANES`] blocks, the second ones, and so on.
type Words<const L: usize = LANES> = [[u32; L]; 4];

/// The `L` blocks from `counter` on.
#[inline(always)]
fn words<const L: usize>(seed: u64, counter: u128) -> Words<L> {
    let mut x = [[0u32; L]; 4];
    for lane in 0..L {
        let counter = counter.wrapping_add(lane as u128);
        for (word, x) in x.iter_mut().enumerate() {
            x[lane] = (counter >> (32 * word)) as u32;
        }
    }
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..ROUNDS {
        let [x0, x1, x2, x3] = &mut x;
        for lane in 0..L {
            let a = MULTIPLIERS[0] * u64::from(x0[lane]);
            let b = MULTIPLIERS[1] * u64::from(x2[lane]);
            x0[lane] = (b >> 32) as u32 ^ x1[lane] ^ key[0];
            x1[lane] = b as u32;
            x2[lane] = (a >> 32) as u32 ^ x3[lane] ^ key[1];
            x3[lane] = a as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

fn unit_f64(low: u32, high: u32) -> f64 {
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 1.14 comes with (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn known_answers_of_random123() {
        let cases: [(Block, [u32; 2], Block); 3] = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            let counter = counter.iter().rev().fold(0u128, |all, &word| all << 32 | u128::from(word));
            let seed = u64::from(key[1]) << 32 | u64::from(key[0]);
            assert_eq!(Philox::at(seed, counter).block(), expected);
        }
    }

    #[test]
    fn a_fill_is_its_blocks_whatever_the_length_and_the_threads() {
        let one_by_one = |count: usize| {
            let mut random = Philox::new(7);
            (0..count.div_ceil(4)).flat_map(|_| random.block()).take(count).collect::<Vec<u32>>()
        };
        for count in [0, 1, 3, 4, 5, 31, 32, 33, 4 * PIECE, 4 * PIECE + 1, 9 * PIECE + 7] {
            let (mut random, mut words) = (Philox::new(7), vec![0; count]);
            random.fill_words(&mut words);
            assert!(words == one_by_one(count), "{count}");
            assert_eq!(random.counter(), count.div_ceil(4) as u128);
        }
        let fill = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0f32; 500_000];
            pool.install(|| Philox::new(3).fill_normal(&mut out));
            out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        };
        assert!(fill(1) == fill(5));
    }

    #[test]
    fn jumps_sequences_and_saved_states_go_where_they_should() {
        let mut walked = Philox::new(1);
        (0..1000).for_each(|_| {
            walked.block();
        });
        let mut jumped = Philox::new(1);
        jumped.jump(1000);
        assert_eq!(walked, jumped);
        let mut saved = Philox::from_words(jumped.to_words());
        assert_eq!(saved.block(), walked.block());
        let mut far = Philox::new(1).sequence(5);
        assert_eq!(Philox::from_words(far.to_words()), far);
        assert_ne!(far.block(), Philox::new(1).block());
        let mut last = Philox::at(1, u128::MAX);
        last.fill_words(&mut [0; 8]);
        assert_eq!(last.counter(), 1, "the counter goes round");
    }

    #[test]
    fn uniforms_cover_the_unit_interval() {
        assert_eq!((unit_f32(0), unit_f32(u32::MAX)), (0.0, 1.0 - f32::EPSILON / 2.0));
        assert_eq!((unit_f64(0, 0), unit_f64(u32::MAX, u32::MAX)), (0.0, 1.0 - f64::EPSILON / 2.0));
        let (mut random, mut out) = (Philox::new(11), vec![0f32; 1 << 20]);
        random.fill_uniform(&mut out);
        // 64 cells of 16384 expected each: chi squared with 63 degrees of freedom exceeds 120 once in 10^5.
        let mut cells = [0f64; 64];
        out.iter().for_each(|x| cells[(x * 64.0) as usize] += 1.0);
        let chi: f64 = cells.iter().map(|n| (n - 16384.0).powi(2) / 16384.0).sum();
        assert!(chi < 120.0, "{chi}");
    }

    #[test]
    fn integers_stay_in_range_and_reach_both_ends() {
        let (mut random, mut out) = (Philox::new(2), vec![0i64; 60_000]);
        random.fill_integers(&mut out, -3, 3).unwrap();
        let counts = out.iter().fold([0; 6], |mut counts, x| {
            counts[(x + 3) as usize] += 1;
            counts
        });
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
        random.fill_integers(&mut out, i64::MIN, i64::MAX).unwrap();
        assert!(out.iter().any(|x| *x < -(1 << 62)) && out.iter().any(|x| *x > 1 << 62));
        assert!(random.fill_integers(&mut out, 3, 3).is_err());
        assert!((0..1000).all(|_| random.below(5) < 5));
        assert_eq!((random.below(1), random.below(0)), (0, 0));
        assert!((0..100).map(|_| random.below(u64::MAX)).any(|x| x > 1 << 63));
    }

    #[test]
    fn events_come_as_often_as_they_should() {
        let (mut random, mut out) = (Philox::new(4), vec![false; 1 << 16]);
        for (probability, low, high) in [(0.0, 0, 0), (1.0, 1 << 16, 1 << 16), (0.1, 6200, 6900)] {
            random.fill_bernoulli(&mut out, probability).unwrap();
            let count = out.iter().filter(|x| **x).count();
            assert!((low..=high).contains(&count), "{probability}: {count}");
        }
        assert!(random.fill_bernoulli(&mut out, f64::NAN).is_err());
        assert!(random.fill_bernoulli(&mut out, 1.1).is_err());
    }

    #[test]
    fn permutations_have_every_number_once_and_every_order_alike() {
        let mut sorted = Philox::new(9).permutation(1000);
        assert_ne!(sorted, (0..1000).collect::<Vec<_>>());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        let (mut random, mut orders) = (Philox::new(5), std::collections::HashMap::new());
        (0..24_000).for_each(|_| *orders.entry(random.permutation(4)).or_insert(0) += 1);
        assert_eq!(orders.len(), 24);
        assert!(orders.values().all(|n| (850..1150).contains(n)), "{orders:?}");
        assert!(random.permutation(0).is_empty());
    }
}

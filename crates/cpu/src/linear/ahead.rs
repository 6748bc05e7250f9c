//! Asking memory for weights before they are needed.

use crate::simd::Simd;

/// Parts of a tile that are asked for in turns: the processor follows each page on its own.
const STREAMS: usize = 4;

const LINE: usize = 64;

/// Asks for the lines of tiles that lie one behind another, a few with each step of the tile at hand: those of the next
/// tile come into the first cache, those of the one after it into the second.
pub(super) struct Ahead {
    next: *const u8,
    bytes: usize,
    /// Lines of a part.
    lines: usize,
    steps: usize,
    due: usize,
}

impl Ahead {
    /// For tiles of `bytes`, the next of which is at `next`, worked on in `steps` steps.
    #[inline(always)]
    pub(super) fn new(next: *const u8, bytes: usize, steps: usize) -> Self {
        Ahead { next, bytes, lines: bytes.div_ceil(LINE * STREAMS), steps, due: 0 }
    }

    /// A step is done.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    pub(super) unsafe fn step<S: Simd>(&mut self) {
        self.due += self.lines;
        while self.due >= self.steps {
            self.due -= self.steps;
            for stream in 0..STREAMS {
                let line = self.next.wrapping_add(LINE * self.lines * stream);
                // SAFETY: prefetches may name any address; the caller's promise.
                unsafe {
                    S::prefetch(line);
                    S::prefetch_far(line.wrapping_add(self.bytes));
                }
            }
            self.next = self.next.wrapping_add(LINE);
        }
    }
}

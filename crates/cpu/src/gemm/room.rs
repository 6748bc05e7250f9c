//! Floats that threads keep from call to call.

use std::cell::RefCell;

thread_local! {
    /// Room that calls leave for the next ones: new memory costs more than what is done in it.
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Floats that are kept for the next call when they are dropped. What they hold at first is not known.
pub(crate) struct Room {
    values: Vec<f32>,
    count: usize,
}

impl Room {
    /// Room for so many floats.
    pub(crate) fn new(count: usize) -> Self {
        let spare = SPARE.try_with(|all| {
            let mut all = all.borrow_mut();
            // The smallest that is large enough, or the largest.
            let fits = |at: &usize| (all[*at].len() < count, all[*at].len());
            let best = (0..all.len()).min_by_key(fits);
            best.map(|at| all.swap_remove(at))
        });
        let mut values = spare.ok().flatten().unwrap_or_default();
        if values.len() < count {
            values.resize(count, 0.0);
        }
        Room { values, count }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        const MOST: usize = 8;
        let values = std::mem::take(&mut self.values);
        // A thread that ends has no spare room any more.
        let _ = SPARE.try_with(|all| {
            let mut all = all.borrow_mut();
            if all.len() < MOST {
                all.push(values);
            }
        });
    }
}

impl std::ops::Deref for Room {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.count]
    }
}

impl std::ops::DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.count]
    }
}

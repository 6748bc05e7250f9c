//! Two adapters in different words: factor by factor, whatever each container says of scales, orders and ranks.

use windlass_formats::adapter::Adapter;
use windlass_runtime::memory::Pool;

use super::{Difference, ShapeDifference, Sums, TensorDifference};
use crate::convert::adapter::{View, views};
use crate::rows::Reader;
use crate::{Model, Result};

/// Compares all factors that both have, B with its scale.
pub fn compare(
    (a, adapter_a): (&Model, &Adapter),
    (b, adapter_b): (&Model, &Adapter),
    memory_limit: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<Difference> {
    // Either may know the base of both.
    let base = a.identity.as_ref().or(b.identity.as_ref());
    let (views_a, mut views_b) = (views(&a.source, base, adapter_a)?, views(&b.source, base, adapter_b)?);
    let pool = Pool::new(memory_limit);
    let total = views_a.values().map(|v| (v.shape[0] * v.shape[1]) as u64).sum();
    let mut result = Difference::default();
    let mut done = 0;
    for (name, x) in views_a {
        done += (x.shape[0] * x.shape[1]) as u64;
        match views_b.remove(&name) {
            None => result.only_in_a.push(name),
            // The rank is one of the two dimensions, and may have been padded with zeros.
            Some(y) if x.shape[0] == y.shape[0] || x.shape[1] == y.shape[1] => {
                result.tensors.push(factors(&name, (a, &x), (b, &y), &pool)?);
            }
            Some(y) => {
                let (shape_a, shape_b) = (x.shape.to_vec(), y.shape.to_vec());
                result.unequal_shapes.push(ShapeDifference { name, shape_a, shape_b });
            }
        }
        progress(done, total);
    }
    result.only_in_b.extend(views_b.into_keys());
    Ok(result)
}

fn factors(name: &str, a: (&Model, &View), b: (&Model, &View), pool: &Pool) -> Result<TensorDifference> {
    let [rows, columns] = [0, 1].map(|i| a.1.shape[i].max(b.1.shape[i]));
    let at_once = ((1 << 18) / columns.max(1)).clamp(1, rows.max(1));
    let mut sums = Sums { same: true, ..Sums::default() };
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let read = |(model, view): (&Model, &View), values: &mut [f32]| {
            let reader = Reader { source: &model.source, pool, waits: false };
            view.factor.read(&reader, &[rows, columns], first, values)
        };
        let mut x = pool.try_take("a block of the first adapter", count * columns * 4)?;
        let mut y = pool.try_take("a block of the second adapter", count * columns * 4)?;
        read(a, x.as_f32_mut())?;
        read(b, y.as_f32_mut())?;
        for (x, y) in x.as_f32_mut().iter().zip(y.as_f32_mut().iter()) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            sums.add(x, y, x - y);
        }
    }
    Ok(sums.difference(name, rows * columns))
}

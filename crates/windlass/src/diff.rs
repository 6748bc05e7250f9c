//! `diff`: two models tensor by tensor, whatever their containers and schemes.

mod adapters;
mod exact;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_catalog::{Convention, Order};
use windlass_formats::{Source, container};
use windlass_runtime::memory::Pool;

use crate::rows::Reader;
use crate::turned::{Spot, Turn};
use crate::{Model, Result};

/// How two models differ.
#[derive(Debug, Default, Serialize)]
pub struct Difference {
    pub tensors: Vec<TensorDifference>,
    pub only_in_a: Vec<String>,
    pub only_in_b: Vec<String>,
    /// Tensors that both have, in different shapes: their values were not compared.
    pub unequal_shapes: Vec<ShapeDifference>,
}

/// Two tensors of one name that cannot be compared.
#[derive(Debug, Serialize)]
pub struct ShapeDifference {
    pub name: String,
    /// Row-major, outermost first.
    pub shape_a: Vec<usize>,
    pub shape_b: Vec<usize>,
}

/// How two tensors differ.
#[derive(Debug, Serialize)]
pub struct TensorDifference {
    pub name: String,
    pub max_abs: f64,
    pub rmse: f64,
    pub cosine: f64,
    /// Signal to quantization noise; `None` (null) where there is no noise.
    pub sqnr_db: Option<f64>,
    pub identical: bool,
}

/// Rows of a tensor under the name by which both models know it.
#[derive(Clone)]
struct View {
    entry: usize,
    first: usize,
    rows: usize,
    columns: usize,
    order: Order,
    shift: f32,
    /// Row-major, outermost first.
    shape: Vec<usize>,
}

/// Compares all tensors that both have. `progress` gets values compared and values in all.
pub fn diff(a: &Model, b: &Model, memory_limit: u64, progress: &dyn Fn(u64, u64)) -> Result<Difference> {
    if let (Some(x), Some(y)) = (&a.adapter, &b.adapter)
        && x.style != y.style
    {
        return adapters::compare((a, x), (b, y), memory_limit, progress);
    }
    let by_architecture = a.source.container() != b.source.container() && a.identity.is_ok() && b.identity.is_ok();
    let (views_a, views_b) = (views(a, by_architecture)?, views(b, by_architecture)?);
    let names: BTreeSet<&String> = views_a.keys().chain(views_b.keys()).collect();
    let total = names.iter().filter_map(|n| views_a.get(*n)).map(|v| (v.rows * v.columns) as u64).sum();
    let pool = Pool::new(memory_limit);
    let mut result = Difference::default();
    let mut done = 0;
    for name in names {
        match (views_a.get(name), views_b.get(name)) {
            (Some(x), Some(y)) if (x.rows, x.columns) != (y.rows, y.columns) => {
                let (shape_a, shape_b) = (x.shape.clone(), y.shape.clone());
                result.unequal_shapes.push(ShapeDifference { name: name.clone(), shape_a, shape_b });
                done += (x.rows * x.columns) as u64;
            }
            (Some(x), Some(y)) => {
                let compared = compare(name, (&a.source, x), (&b.source, y), &pool)?;
                result.tensors.push(compared);
                done += (x.rows * x.columns) as u64;
                progress(done, total);
            }
            (Some(_), None) => result.only_in_a.push(name.clone()),
            _ => result.only_in_b.push(name.clone()),
        }
    }
    Ok(result)
}

fn views(model: &Model, by_architecture: bool) -> Result<BTreeMap<String, View>> {
    let source = &model.source;
    let mut views = BTreeMap::new();
    let mut used = BTreeSet::new();
    if by_architecture {
        let identity = model.identity()?;
        let convention = container(source.container()).map_or(Convention::Hf, |c| c.convention());
        for piece in identity.architecture.pieces(&identity.hyper)? {
            let place = piece.find(convention, |name| source.tensor(name).map(|e| e.shape()));
            let Some((place, name)) = place.zip(piece.places(Convention::Hf).into_iter().next()) else { continue };
            let Some(entry) = source.tensors().iter().position(|e| e.name() == place.tensor) else { continue };
            used.insert(entry);
            // Pieces of a fused tensor share its name; their first row tells them apart.
            let whole = windlass_catalog::rows(&name.shape) == piece.rows();
            let label = match name.order {
                Order::Columns { first, .. } => format!("{} (from row {}, column {first})", name.tensor, name.row),
                _ if whole => name.tensor,
                _ => format!("{} (from row {})", name.tensor, name.row),
            };
            let columns = if piece.shape.len() > 1 { piece.shape[piece.shape.len() - 1] } else { 1 };
            let (first, rows) = (place.row, piece.rows());
            let (order, shift, shape) = (place.order, place.shift, piece.shape.clone());
            views.insert(label, View { entry, first, rows, columns, order, shift, shape });
        }
    }
    for (index, entry) in source.tensors().iter().enumerate().filter(|(i, _)| !used.contains(i)) {
        let (rows, columns) =
            if entry.shape().len() > 1 { (entry.rows(), entry.columns()) } else { (entry.columns(), 1) };
        let (order, shape) = (Order::Plain, entry.shape().to_vec());
        let view = View { entry: index, first: 0, rows, columns, order, shift: 0.0, shape };
        views.insert(entry.name().into(), view);
    }
    Ok(views)
}

fn compare(name: &str, a: (&Source, &View), b: (&Source, &View), pool: &Pool) -> Result<TensorDifference> {
    let (rows, columns) = (a.1.rows, a.1.columns);
    let turned = [a, b].iter().any(|(_, view)| matches!(view.order, Order::Columns { .. }));
    let numbers = !turned && [a, b].iter().any(|(source, view)| exact::reads(source.tensors()[view.entry].element()));
    let at_once = whole_heads(a.1.order, b.1.order, ((1 << 18) / columns.max(1)).max(1)).clamp(1, rows.max(1));
    let mut sums = Sums { same: true, ..Sums::default() };
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        if numbers {
            let (x, y) = (exact::read(a, first, count, pool)?, exact::read(b, first, count, pool)?);
            x.iter().zip(&y).for_each(|(x, y)| sums.add(x.as_f64(), y.as_f64(), x.minus(y)));
            if x.len() != y.len() {
                // Complex numbers and real ones.
                sums.add(0.0, 0.0, f64::NAN);
            }
            continue;
        }
        let mut x = pool.try_take("a block of the first model", count * columns * 4)?;
        let mut y = pool.try_take("a block of the second model", count * columns * 4)?;
        read(a, first, count, x.as_f32_mut(), pool)?;
        read(b, first, count, y.as_f32_mut(), pool)?;
        for (x, y) in x.as_f32_mut().iter().zip(y.as_f32_mut().iter()) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            sums.add(x, y, x - y);
        }
    }
    Ok(sums.difference(name, rows * columns))
}

/// What the comparison of two tensors adds up to.
#[derive(Default)]
struct Sums {
    error: f64,
    max: f64,
    aa: f64,
    bb: f64,
    ab: f64,
    same: bool,
}

impl Sums {
    /// A pair of values, and their difference, which may be known better than the values are.
    #[inline]
    fn add(&mut self, x: f64, y: f64, difference: f64) {
        self.error += difference * difference;
        self.max = self.max.max(difference.abs());
        self.aa += x * x;
        self.bb += y * y;
        self.ab += x * y;
        self.same &= difference == 0.0;
    }

    fn difference(self, name: &str, count: usize) -> TensorDifference {
        let Sums { error, max, aa, bb, ab, same } = self;
        TensorDifference {
            name: name.into(),
            max_abs: if error.is_nan() { f64::INFINITY } else { max },
            rmse: if error.is_nan() { f64::INFINITY } else { (error / count.max(1) as f64).sqrt() },
            cosine: if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { f64::from(u8::from(aa == bb)) },
            sqnr_db: (error > 0.0 && aa > 0.0).then(|| 10.0 * (aa / error).log10()),
            identical: same,
        }
    }
}

/// Rows are read in whole heads, because a head is the unit in which orders differ.
fn whole_heads(a: Order, b: Order, rows: usize) -> usize {
    let head = |order| if let Order::RotaryInterleaved { head_dim, .. } = order { head_dim } else { 1 };
    let head = head(a).max(head(b));
    rows.div_ceil(head) * head
}

/// Plain rows `first..first + count` of a view as values.
fn read((source, view): (&Source, &View), first: usize, count: usize, values: &mut [f32], pool: &Pool) -> Result<()> {
    let entry = &source.tensors()[view.entry];
    if let Order::Columns { .. } = view.order {
        let from = Spot { row: view.first, order: view.order };
        let to = Spot { row: 0, order: Order::Plain };
        let turn = Turn { entry: view.entry, rows: view.rows, columns: view.columns, from, to };
        return turn.read(&Reader { source, pool, waits: false }, first, view.columns, values);
    }
    let rows = (first..first + count).map(|row| view.first + view.order.stored_row(row));
    Reader { source, pool, waits: false }.floats(entry, view.columns, rows, values)?;
    values.iter_mut().for_each(|v| *v -= view.shift);
    Ok(())
}

//! `diff`: two models tensor by tensor, whatever their containers and schemes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_catalog::{Convention, Order};
use windlass_formats::{Source, container};
use windlass_runtime::memory::Pool;

use crate::rows::Reader;
use crate::{Code, Error, Model, Result};

/// How two models differ.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub tensors: Vec<TensorDifference>,
    pub only_in_a: Vec<String>,
    pub only_in_b: Vec<String>,
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
}

/// Compares all tensors that both have. `progress` gets values compared and values in all.
pub fn diff(a: &Model, b: &Model, memory_limit: u64, progress: &dyn Fn(u64, u64)) -> Result<Difference> {
    let by_architecture = a.source.container() != b.source.container() && a.identity.is_ok() && b.identity.is_ok();
    let (views_a, views_b) = (views(a, by_architecture)?, views(b, by_architecture)?);
    let names: BTreeSet<&String> = views_a.keys().chain(views_b.keys()).collect();
    let total = names.iter().filter_map(|n| views_a.get(*n)).map(|v| (v.rows * v.columns) as u64).sum();
    let pool = Pool::new(memory_limit);
    let mut result = Difference { tensors: Vec::new(), only_in_a: Vec::new(), only_in_b: Vec::new() };
    let mut done = 0;
    for name in names {
        match (views_a.get(name), views_b.get(name)) {
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
            let label = if whole { name.tensor } else { format!("{} (from row {})", name.tensor, name.row) };
            let columns = if piece.shape.len() > 1 { piece.shape[piece.shape.len() - 1] } else { 1 };
            let (first, rows) = (place.row, piece.rows());
            views.insert(label, View { entry, first, rows, columns, order: place.order, shift: place.shift });
        }
    }
    for (index, entry) in source.tensors().iter().enumerate().filter(|(i, _)| !used.contains(i)) {
        let (rows, columns) =
            if entry.shape().len() > 1 { (entry.rows(), entry.columns()) } else { (entry.columns(), 1) };
        let view = View { entry: index, first: 0, rows, columns, order: Order::Plain, shift: 0.0 };
        views.insert(entry.name().into(), view);
    }
    Ok(views)
}

fn compare(name: &str, a: (&Source, &View), b: (&Source, &View), pool: &Pool) -> Result<TensorDifference> {
    let (rows, columns) = (a.1.rows, a.1.columns);
    if (b.1.rows, b.1.columns) != (rows, columns) {
        let message = format!(
            "tensor {name:?} has {rows} rows of {columns} in the first model and {} rows of {} in the second",
            b.1.rows, b.1.columns
        );
        return Err(Error::new(Code::Failed, message).tensor(name));
    }
    let at_once = whole_heads(a.1.order, b.1.order, ((1 << 18) / columns.max(1)).max(1)).clamp(1, rows.max(1));
    let (mut error, mut max, mut aa, mut bb, mut ab) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let mut x = pool.try_take("a block of the first model", count * columns * 4)?;
        let mut y = pool.try_take("a block of the second model", count * columns * 4)?;
        read(a, first, count, x.as_f32_mut(), pool)?;
        read(b, first, count, y.as_f32_mut(), pool)?;
        for (x, y) in x.as_f32_mut().iter().zip(y.as_f32_mut().iter()) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            error += (x - y) * (x - y);
            max = max.max((x - y).abs());
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
    }
    let count = (rows * columns).max(1) as f64;
    Ok(TensorDifference {
        name: name.into(),
        max_abs: if error.is_nan() { f64::INFINITY } else { max },
        rmse: if error.is_nan() { f64::INFINITY } else { (error / count).sqrt() },
        cosine: if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { f64::from(u8::from(aa == bb)) },
        sqnr_db: (error > 0.0 && aa > 0.0).then(|| 10.0 * (aa / error).log10()),
        identical: error == 0.0,
    })
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
    let rows = (first..first + count).map(|row| view.first + view.order.stored_row(row));
    Reader { source, pool, waits: false }.floats(entry, view.columns, rows, values)?;
    values.iter_mut().for_each(|v| *v -= view.shift);
    Ok(())
}

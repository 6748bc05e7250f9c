//! Bags of rows of a table.

use windlass_tensor::{DType, Tensor};

use super::linear::wide;
use super::{EMBEDDING, INDEX_ADD, SUM, cast, elementwise, index_select};
use crate::op::{Input, OutputSpec};
use crate::survey::{Fill, Kind, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Inquiry, Op, Reads, Tolerance};

/// The sum, mean or maximum of rows of a table for each bag of numbers.
pub static EMBEDDING_BAG: Op = Op {
    name: "embedding_bag",
    about: "for each bag ids[offsets[i]..offsets[i + 1]] the sum, mean or maximum of these rows of the table",
    inputs: &[Input::packed("table"), Input::new("ids"), Input::new("offsets"), Input::optional("shares")],
    attributes: &[Attribute::text("mode", "sum")],
    outputs: |q| {
        let ([_, columns], [ids], [bags]) = (q.shape(0)?, q.shape(1)?, q.shape(2)?) else {
            return q.fail(format!(
                "takes a matrix and two rows, not {:?}, {:?}, {:?}",
                q.shape(0)?,
                q.shape(1)?,
                q.shape(2)?
            ));
        };
        if !matches!(q.text("mode")?, "sum" | "mean" | "max") {
            return q.fail(format!("mode is \"sum\", \"mean\" or \"max\", not {:?}", q.text("mode")?));
        }
        let sum = q.text("mode")? == "sum";
        if q.inputs.get(3).is_some_and(|shares| !sum || shares.shape().dims() != [*ids]) {
            return q.fail("shares go with sums, one for each of the ids");
        }
        Ok(vec![OutputSpec::new(wide(q.input(0)?), [*bags, *columns])])
    },
    reference,
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0).and(Reads::output(0)), gradient),
    tolerance: Tolerance::SUM,
    profiles: |_| {
        let bags = || Sample::normal(&[4]).fill(Fill::Steps(2)).kind(Kind::Fixed(DType::I64));
        let of = |name, mode| {
            let table = Sample::weight(&[7, 512]);
            Profile::new(name).with(table).below(7, &[7]).with(bags()).attributes(Attributes::new().text("mode", mode))
        };
        vec![of("sum", "sum"), of("mean", "mean"), of("max", "max"), of("shares", "sum").normal(&[7])]
    },
};

/// Where each bag begins and ends among `count` ids.
pub fn bags(q: &Inquiry, offsets: &[i64], count: usize) -> Result<Vec<std::ops::Range<usize>>, Error> {
    let mut all = Vec::with_capacity(offsets.len());
    for (i, offset) in offsets.iter().enumerate() {
        let start = usize::try_from(*offset).unwrap_or(usize::MAX);
        let end = offsets.get(i + 1).map_or(count, |next| usize::try_from(*next).unwrap_or(usize::MAX));
        if start > end || end > count || (i == 0 && start != 0) {
            return q.fail(format!("offsets must rise from 0 to at most {count}, found {offset}"));
        }
        all.push(start..end);
    }
    Ok(all)
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let (q, ids) = (args.inquiry(), args.ints(1)?);
    let bags = bags(&q, &args.ints(2)?, ids.len())?;
    let (table, mode) = (args.numbers(0)?, q.text("mode")?);
    let (rows, columns) = (args.inputs[0].shape().rows(), args.inputs[0].shape().columns());
    let shares = if args.inputs.len() > 3 { args.numbers(3)? } else { vec![1.0; ids.len()] };
    if let Some(wrong) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < rows)) {
        return q.fail(format!("{wrong} is not one of the {rows} rows of the table"));
    }
    let mut values = Vec::with_capacity(bags.len() * columns);
    for bag in bags {
        let count = bag.len();
        for column in 0..columns {
            let each = bag.clone().map(|i| table[ids[i] as usize * columns + column] * shares[i]);
            values.push(match mode {
                "max" if count > 0 => each.fold(f64::NEG_INFINITY, f64::max),
                "mean" if count > 0 => each.sum::<f64>() / count as f64,
                _ => each.sum(),
            });
        }
    }
    args.write_numbers(0, &values)
}

fn gradient(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (cx, g, ids) = (b.cx, b.gradient()?, b.input(1)?);
    let q = b.inquiry();
    let (count, mode) = (ids.shape().values(), q.text("mode")?);
    let offsets = cast(cx, b.input(2)?, DType::I64)?;
    let mut bytes = vec![0; offsets.shape().values() * 8];
    offsets.read(&mut bytes)?;
    let offsets: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let (mut bag_of, mut parts) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (bag, range) in bags(&q, &offsets, count)?.into_iter().enumerate() {
        let part = if mode == "mean" { 1.0 / range.len() as f64 } else { 1.0 };
        bag_of.extend(range.clone().map(|_| bag as i64));
        parts.extend(range.map(|_| part));
    }
    let dtype = g.element().dtype().unwrap_or(DType::F32);
    let bag_of = Tensor::from_slice(&bag_of, [count])?;
    // What flowed back into the bag of each id.
    let rows = index_select(cx, g, &bag_of, 0)?;
    let mut all = vec![None; b.inputs.len()];
    if b.wants(0) {
        let parts = cast(cx, &Tensor::from_slice(&parts, [count, 1])?, dtype)?;
        let mut flowed = elementwise(cx, "mul", &[&rows, &parts])?;
        if b.inputs.len() > 3 {
            let shares = cast(cx, &b.input(3)?.contiguous()?.reshape([count, 1])?, dtype)?;
            flowed = elementwise(cx, "mul", &[&flowed, &shares])?;
        }
        if mode == "max" {
            let found = cx.one(&EMBEDDING, &[b.input(0)?, ids], &Attributes::NONE)?;
            let best = elementwise(cx, "eq", &[&found, &index_select(cx, b.output(0)?, &bag_of, 0)?])?;
            flowed = elementwise(cx, "mul", &[&flowed, &cast(cx, &best, dtype)?])?;
        }
        let table = crate::zeros(dtype, b.shape(0))?;
        all[0] = Some(cx.one(&INDEX_ADD, &[&table, ids, &flowed], &Attributes::NONE)?);
    }
    if b.wants(3) {
        let found = cx.one(&EMBEDDING, &[b.input(0)?, ids], &Attributes::NONE)?;
        let products = elementwise(cx, "mul", &[&rows, &found])?;
        all[3] = Some(cx.one(&SUM, &[&products], &Attributes::new().ints("dim", &[1]))?);
    }
    Ok(all)
}

/// See [`EMBEDDING_BAG`]; `mode` is `sum`, `mean` or `max`.
pub fn embedding_bag(
    cx: &Context,
    table: &Tensor,
    ids: &Tensor,
    offsets: &Tensor,
    mode: &'static str,
) -> Result<Tensor, Error> {
    cx.one(&EMBEDDING_BAG, &[table, ids, offsets], &Attributes::new().text("mode", mode))
}

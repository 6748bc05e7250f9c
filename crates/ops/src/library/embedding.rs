//! Rows of a table.

use windlass_tensor::{DType, Tensor};

use super::INDEX_ADD;
use super::linear::wide;
use crate::args::numbers;
use crate::op::{Input, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

/// Rows of a table, by number.
pub static EMBEDDING: Op = Op {
    name: "embedding",
    about: "row ids[i] of the table, as f32; f64 where the table is",
    inputs: &[Input::packed("table"), Input::new("ids")],
    attributes: &[],
    outputs: |q| {
        let (table, ids) = (q.shape(0)?, q.shape(1)?);
        let [_, columns] = table else { return q.fail(format!("the table must be a matrix, not {table:?}")) };
        let mut shape = ids.to_vec();
        shape.push(*columns);
        Ok(vec![OutputSpec::new(wide(q.input(0)?), shape)])
    },
    reference,
    gradient: Gradient::rule(|_, _| Reads::input(1), backward),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            Profile::new("rows").with(Sample::weight(&[11, 512])).below(11, &[7]),
            Profile::new("matrix of rows").with(Sample::weight(&[5, 256])).below(5, &[2, 3]),
        ]
    },
};

/// Every row gets the sum of what flowed back into its copies.
fn backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (ids, gradient, shape) = (b.input(1)?, b.gradient()?, b.shape(0));
    let (count, columns) = (ids.shape().values(), gradient.shape().columns());
    let table = crate::zeros(gradient.element().dtype().unwrap_or(DType::F32), shape)?;
    let rows = gradient.contiguous()?.reshape([count, columns])?;
    let ids = ids.contiguous()?.reshape([count])?;
    b.only(b.cx.one(&INDEX_ADD, &[&table, &ids, &rows], &Attributes::NONE)?)
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let (table, ids) = (args.inquiry().input(0)?, args.ints(1)?);
    let (rows, columns) = (table.shape().rows(), table.shape().columns());
    let mut values = Vec::with_capacity(ids.len() * columns);
    let mut whole = None;
    for id in ids {
        let row = usize::try_from(id).ok().filter(|id| *id < rows);
        let Some(row) = row else {
            return args.inquiry().fail(format!("{id} is not one of the {rows} rows of the table"));
        };
        match (table.narrow(0, row, 1), &whole) {
            (Ok(one), None) => values.extend_from_slice(&numbers(args.op, &one)?),
            // Some schemes pack several rows into one: the table is decoded once.
            (_, known) => {
                let all = match known {
                    Some(all) => all,
                    None => whole.insert(numbers(args.op, table)?),
                };
                values.extend_from_slice(&all[row * columns..][..columns]);
            }
        }
    }
    args.write_numbers(0, &values)
}

/// Rows of `table` `[rows, columns]`, plain or packed, by `ids` (whole numbers); gives F32 `[.., columns]`.
pub fn embedding(cx: &Context, table: &Tensor, ids: &Tensor) -> Result<Tensor, Error> {
    cx.one(&EMBEDDING, &[table, ids], &Attributes::NONE)
}

use windlass::{Result, ops};

use crate::context::Context;

/// Explain which provider serves a call, and what comes after it
#[derive(clap::Args)]
pub struct Explain {
    /// Name of the op
    op: String,
    /// Element of its largest input, such as f32 or q4_0
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: String,
    /// Values of its first output
    #[arg(long, value_name = "N", default_value_t = 1)]
    size: usize,
}

impl Explain {
    pub fn run(self, context: &Context) -> Result<()> {
        context.routes()?;
        let op = ops::op(&self.op)?;
        let rows = ops::route::explain(op, "cpu", &self.dtype, self.size);
        context.print(&rows, |out| {
            writeln!(out, "{}: {}", op.name, op.about)?;
            for (number, r) in rows.iter().enumerate() {
                writeln!(out, "{}. {} (from: {})", number + 1, r.provider, r.source)?;
            }
            writeln!(out, "The first whose kernel takes the arguments computes; the receipt tells which one it was.")
        })
    }
}

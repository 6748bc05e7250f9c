use windlass::{Result, ops};

use crate::context::Context;

/// List which provider serves each op
#[derive(clap::Args)]
pub struct Routes {
    /// Only this op
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
}

impl Routes {
    pub fn run(self, context: &Context) -> Result<()> {
        context.routes()?;
        let only = self.op.as_deref().map(ops::op).transpose()?;
        let rows = ops::route::overview("cpu", only);
        context.print(&rows, |out| {
            writeln!(out, "{:<18} {:<8} {:<8} {:<12} {:<12} from", "op", "device", "dtype", "size", "provider")?;
            for r in &rows {
                let (dtype, size) = (r.dtype.as_str(), r.size.as_str());
                writeln!(out, "{:<18} {:<8} {dtype:<8} {size:<12} {:<12} {}", r.op, r.device, r.provider, r.source)?;
            }
            Ok(())
        })
    }
}

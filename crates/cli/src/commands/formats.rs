use windlass::Result;
use windlass::registries::formats;

use crate::context::Context;

/// List every container
#[derive(clap::Args)]
pub struct Formats {}

impl Formats {
    pub fn run(self, context: &Context) -> Result<()> {
        let rows = formats();
        context.print(&rows, |out| {
            for r in &rows {
                let access = if r.write { "read, write" } else { "read" };
                writeln!(out, "{:<12} {access:<12} {}", r.name, r.description)?;
            }
            Ok(())
        })
    }
}

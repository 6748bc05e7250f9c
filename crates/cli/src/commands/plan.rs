use windlass::Result;

use super::convert::{Convert, describe};
use crate::context::Context;

/// Show what a command would read, write and hold in memory, and whether it fits
#[derive(clap::Args)]
pub struct Plan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Convert(Box<Convert>),
}

impl Plan {
    pub fn run(self, context: &Context) -> Result<()> {
        let Verb::Convert(convert) = self.verb;
        let plan = convert.prepare(context)?.describe();
        context.print(&plan, |out| describe(out, &plan))
    }
}

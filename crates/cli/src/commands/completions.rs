use clap::CommandFactory;
use clap_complete::Shell;
use windlass::Result;

use crate::context::Context;

/// Print a completion script for a shell
#[derive(clap::Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self, _: &Context) -> Result<()> {
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "windlass", &mut std::io::stdout());
        Ok(())
    }
}

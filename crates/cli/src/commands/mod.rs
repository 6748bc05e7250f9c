//! One file for each command. To add one: write the file, add a line here.

use windlass::Result;

use crate::context::Context;

macro_rules! commands {
    ($($module:ident $name:ident;)*) => {
        $(mod $module;)*

        /// Every command.
        #[derive(clap::Subcommand)]
        pub enum Command {
            $($name(Box<$module::$name>),)*
        }

        impl Command {
            /// Runs the command.
            pub fn run(self, context: &Context) -> Result<()> {
                match self {
                    $(Command::$name(command) => (*command).run(context),)*
                }
            }
        }
    };
}

commands! {
    quickstart Quickstart;
    inspect Inspect;
    verify Verify;
    convert Convert;
    merge Merge;
    plan Plan;
    diff Diff;
    devices Devices;
    schemes Schemes;
    formats Formats;
    architectures Architectures;
    bench Bench;
    generate Generate;
    chat Chat;
    logits Logits;
    train Train;
    data Data;
    tokenize Tokenize;
    detokenize Detokenize;
    embed Embed;
    eval Eval;
    routes Routes;
    explain Explain;
    survey Survey;
    tune Tune;
    completions Completions;
}

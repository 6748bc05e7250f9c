//! The `windlass` command: parses, calls the library, prints.

mod commands;
mod config;
mod context;
mod running;
mod sampling;
mod signals;
mod size;
mod steps;
mod writing;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

use context::{Context, Globals};

/// Opens a large language model in any format, converts and quantizes it, and hands it back in any format.
#[derive(Parser)]
#[command(name = "windlass", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let json = std::env::args_os().any(|a| a == "--json");
    let command = match config::apply(Cli::command()) {
        Ok(command) => command,
        Err(error) => return context::fail(&error, json),
    };
    let parsed = parse(command).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if missing_model(&error).is_some() => {
            let path = missing_model(&error).unwrap_or_default();
            return context::fail(&windlass::Error::io(Path::new(&path), std::io::ErrorKind::NotFound.into()), json);
        }
        Err(error) if error.use_stderr() && json => {
            return context::fail(&wrong_usage(&error), true);
        }
        Err(error) => error.exit(),
    };
    let json = cli.globals.json;
    let context = match Context::new(cli.globals) {
        Ok(context) => context,
        Err(error) => return context::fail(&error, json),
    };
    let result = cli.command.run(&context);
    // The trace of what failed is worth more than one of what did not; but the failure is what is told.
    let traced = context.finish();
    match result.and(traced) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => context.fail(&error),
    }
}

/// Parses the arguments; a model where a command is expected is one to chat with.
fn parse(command: clap::Command) -> Result<ArgMatches, clap::Error> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    command.clone().try_get_matches_from(&arguments).or_else(|error| {
        let model = match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(name)) if name.starts_with("hf:") || Path::new(name).exists() => name,
            _ => return Err(error),
        };
        match arguments.iter().position(|argument| argument == model.as_str()) {
            Some(at) => {
                arguments.insert(at, "chat".into());
                command.try_get_matches_from(arguments)
            }
            None => Err(error),
        }
    })
}

/// What stands where a command is expected and can only be meant as the path of a model, which is not there.
fn missing_model(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) if name.contains(['/', '\\', '.']) => Some(name.clone()),
        _ => None,
    }
}

/// What clap prints over several lines: its first paragraph is the message, hints and usage are the help.
fn wrong_usage(error: &clap::Error) -> windlass::Error {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return windlass::Error::usage("a command is missing").help("see windlass help");
    }
    let text = error.render().to_string();
    let one_line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(one_line).filter(|p| !p.is_empty());
    let message = paragraphs.next().unwrap_or_default();
    let help: Vec<String> = paragraphs.filter(|p| !p.starts_with("For more information")).collect();
    let error = windlass::Error::usage(message.trim_start_matches("error: "));
    if help.is_empty() { error.help("see windlass help") } else { error.help(help.join("; ")) }
}

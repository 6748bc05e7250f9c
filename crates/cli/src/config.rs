//! `windlass.toml`: defaults for flags, below the environment and the command line.
//!
//! A key is a flag's long name with `_` for `-`. At the top it holds for every command that has the flag; in a table
//! named like a command, for that command.

use std::path::{Path, PathBuf};

use clap::Command;
use windlass::{Error, Result, quant::nearest};

/// Sets the defaults that the configuration file gives.
pub fn apply(command: Command) -> Result<Command> {
    let Some(path) = find() else { return Ok(command) };
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(&path, e.message()))?;
    let mut command = command;
    for (key, value) in table {
        command = match value {
            toml::Value::Table(inner) => in_command(command, &path, &key, inner)?,
            value => everywhere(command, &path, &key, &value)?,
        };
    }
    Ok(command)
}

/// The file named by `--config` or `WINDLASS_CONFIG`, else `windlass.toml` here if there is one.
fn find() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("WINDLASS_CONFIG").map(PathBuf::from).or_else(|| {
        let here = PathBuf::from("windlass.toml");
        here.is_file().then_some(here)
    })
}

fn in_command(command: Command, path: &Path, name: &str, table: toml::Table) -> Result<Command> {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_string()).collect();
    if !names.iter().any(|n| n == name) {
        return Err(unknown(path, "command", name, names.iter().map(String::as_str)));
    }
    let mut result = Ok(());
    let command = command.mut_subcommand(name, |mut sub| {
        for (key, value) in table {
            let flag = key.replace('_', "-");
            if !has(&sub, &flag) {
                result = Err(unknown(path, "flag", &key, flags(&sub).iter().map(String::as_str)));
                return sub;
            }
            sub = set(sub, &flag, &value);
        }
        sub
    });
    result.map(|()| command)
}

fn everywhere(command: Command, path: &Path, key: &str, value: &toml::Value) -> Result<Command> {
    let flag = key.replace('_', "-");
    let names: Vec<String> =
        command.get_subcommands().filter(|c| has(c, &flag)).map(|c| c.get_name().to_string()).collect();
    let top = has(&command, &flag);
    if names.is_empty() && !top {
        return Err(unknown(path, "flag", key, flags(&command).iter().map(String::as_str)));
    }
    let command = if top { set(command, &flag, value) } else { command };
    Ok(names.iter().fold(command, |command, name| command.mut_subcommand(name, |sub| set(sub, &flag, value))))
}

fn has(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|a| a.get_long() == Some(flag))
}

fn flags(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(|a| a.get_long()).map(String::from).collect()
}

fn set(command: Command, flag: &str, value: &toml::Value) -> Command {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let id = command.get_arguments().find(|a| a.get_long() == Some(flag)).map(|a| a.get_id().to_string());
    // clap keeps defaults for the life of the process, and so do these few words.
    let text: &'static str = Box::leak(text.into_boxed_str());
    match id {
        Some(id) => command.mut_arg(id, |argument| argument.default_value(text)),
        None => command,
    }
}

fn unknown<'a>(path: &Path, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = bad(path, &format!("there is no {what} {name:?}"));
    match nearest(name, known) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error,
    }
}

fn bad(path: &Path, message: &str) -> Error {
    Error::usage(format!("{}: {message}", path.display())).at(path)
}

//! `cargo xtask check`: the rules of the house that compilers do not know.

mod checks;
mod rust;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use checks::{Check, Level};
use tree::Tree;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => run(checks::ALL),
        ["check", names @ ..] => match names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>() {
            Ok(some) => run(&some),
            Err(unknown) => usage(&format!("there is no check called {unknown:?}")),
        },
        _ => usage("expected a command"),
    }
}

fn find(name: &str) -> Result<Check, String> {
    checks::ALL.iter().find(|check| check.name == name).copied().ok_or_else(|| name.to_string())
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\nusage: cargo xtask check [NAME...]\n\nchecks:");
    for check in checks::ALL {
        eprintln!("  {:<14} {}", check.name, check.about);
    }
    ExitCode::from(2)
}

fn run(checks: &[Check]) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let tree = match Tree::read(root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("error: {}: {error}", root.display());
            return ExitCode::FAILURE;
        }
    };
    let (mut errors, mut warnings) = (0, 0);
    for check in checks {
        for finding in (check.run)(&tree) {
            match finding.level {
                Level::Error => errors += 1,
                Level::Warning => warnings += 1,
            }
            println!("{finding} [{}]", check.name);
        }
    }
    println!("{} checks over {} files: {errors} errors, {warnings} warnings", checks.len(), tree.len());
    if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

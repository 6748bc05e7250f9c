//! One module per rule. To add one: write its module and its line in [`ALL`].

mod architecture;
mod commands;
mod dependencies;
mod documents;
mod floors;
mod lengths;
mod paths;
mod readme;
mod unfinished;
mod unsafe_code;

use std::fmt;

use crate::tree::Tree;

/// A rule.
#[derive(Clone, Copy)]
pub struct Check {
    /// One word.
    pub name: &'static str,
    /// What it looks for.
    pub about: &'static str,
    /// Looks for it.
    pub run: fn(&Tree) -> Vec<Finding>,
}

/// All rules.
pub const ALL: &[Check] = &[
    Check { name: "floors", about: "crates use crates of lower floors only", run: floors::check },
    Check { name: "dependencies", about: "versions stand in the workspace's list only", run: dependencies::check },
    Check { name: "lengths", about: "source files stay short", run: lengths::check },
    Check {
        name: "unsafe",
        about: "unsafe code stays in its folders and says why it is sound",
        run: unsafe_code::check,
    },
    Check { name: "unfinished", about: "nothing is left for later, no test is switched off", run: unfinished::check },
    Check { name: "commands", about: "every command is documented", run: commands::check },
    Check { name: "readme", about: "the README's commands are the ones that CI runs", run: readme::check },
    Check { name: "architecture", about: "ARCHITECTURE.md names every crate", run: architecture::check },
    Check {
        name: "documents",
        about: "the documents exist and the status table is well formed",
        run: documents::check,
    },
    Check { name: "paths", about: "no path of somebody's machine", run: paths::check },
];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Fails the check.
    Error,
    /// Is only told.
    Warning,
}

/// One breach of a rule.
#[derive(Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    path: String,
    line: Option<usize>,
    message: String,
}

impl Finding {
    /// A breach in `path` as a whole.
    pub fn error(path: &str, message: impl Into<String>) -> Self {
        Self { level: Level::Error, path: path.into(), line: None, message: message.into() }
    }

    /// The same, but only told.
    pub fn warning(path: &str, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(path, message) }
    }

    /// At this line, counted from 1.
    pub fn line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.level == Level::Error { "error: " } else { "warning: " })?;
        f.write_str(&self.path)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_its_place() {
        assert_eq!(Finding::error("a.rs", "bad").line(3).to_string(), "error: a.rs:3: bad");
        assert_eq!(Finding::warning("a.rs", "long").to_string(), "warning: a.rs: long");
    }

    #[test]
    fn names_of_checks_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}

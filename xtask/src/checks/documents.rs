//! The project's documents exist, and the table of promises is well formed.

use super::Finding;
use crate::tree::Tree;

const STATUS: &str = "docs/status.md";
const REQUIRED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "BENCHMARKS.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    STATUS,
    ".ci/run",
];

/// Checks that the documents are there and that each row of the status table has a promise, a command and a state.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let missing = REQUIRED.iter().filter(|path| tree.text(path).is_none_or(|text| text.trim().is_empty()));
    let mut findings: Vec<Finding> = missing.map(|path| Finding::error(path, "is missing or empty")).collect();
    if let Some(text) = tree.text(STATUS) {
        findings.extend(text.lines().enumerate().filter_map(|(index, line)| {
            let problem = problem_of_row(line)?;
            Some(Finding::error(STATUS, problem).line(index + 1))
        }));
    }
    findings
}

/// What is wrong with a line, if it is a row of a table.
fn problem_of_row(line: &str) -> Option<String> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|').unwrap_or(line);
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let [_promise, command, state] = cells.as_slice() else {
        return Some(format!("a row has a promise, a command and a state, found {} cells", cells.len()));
    };
    let header = *state == "state" || state.chars().all(|c| matches!(c, '-' | ':'));
    match *state {
        _ if header => None,
        "yes" | "part" if !command.contains('`') => Some(format!("{state:?} needs the command that shows it")),
        "yes" | "part" | "no" => None,
        other => Some(format!("a state is yes, part or no, found {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rows: &str) -> Vec<String> {
        let text = format!("| promise | command | state |\n|---|---|---|\n{rows}");
        let mut files: Vec<(&str, &str)> = REQUIRED.iter().map(|path| (*path, "text")).collect();
        files.push((STATUS, &text));
        check(&Tree::of(&files)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_good_table_passes() {
        assert!(status("| it converts | `windlass convert a b` | yes |\n| it flies | | no |\n").is_empty());
    }

    #[test]
    fn bad_rows_and_missing_documents_are_found() {
        assert!(status("| it flies | `fly` | soon |\n")[0].contains(":3: a state is yes, part or no"));
        assert!(status("| it flies | | yes |\n")[0].contains("needs the command"));
        assert!(status("| it flies | yes |\n")[0].contains("found 2 cells"));
        assert_eq!(check(&Tree::of(&[])).len(), REQUIRED.len());
        assert_eq!(check(&Tree::of(&[("README.md", " \n")])).len(), REQUIRED.len());
    }
}

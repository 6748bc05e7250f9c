//! What the README tells people to type is what CI types.

use super::Finding;
use crate::tree::Tree;

const README: &str = "README.md";
const CI: &str = ".ci/run";

/// Checks the README's first two blocks of commands: the quickstart, and the test suite exactly as CI runs it.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let (Some(readme), Some(ci)) = (tree.text(README), tree.text(CI)) else {
        return vec![Finding::error(README, format!("{README} and {CI} must both exist"))];
    };
    let blocks = blocks(readme);
    let [quickstart, tests, ..] = blocks.as_slice() else {
        return vec![Finding::error(README, "begins with two blocks of commands: the quickstart and the tests")];
    };
    let mut findings = Vec::new();
    if !(quickstart.starts_with("cargo run") && quickstart.ends_with("quickstart")) {
        let message = format!("the first block runs the quickstart, found {quickstart:?}");
        findings.push(Finding::error(README, message));
    }
    if !tests.starts_with("cargo test") {
        findings.push(Finding::error(README, format!("the second block runs the tests, found {tests:?}")));
    } else if !commands(ci).any(|line| line.contains(tests)) {
        findings.push(Finding::error(CI, format!("does not run the tests as {README} says: {tests}")));
    }
    if !commands(ci).any(|line| line.contains("windlass") && line.contains("quickstart")) {
        findings.push(Finding::error(CI, "does not run the quickstart"));
    }
    findings
}

/// What stands between fences, trimmed.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').map_or("", |(_, rest)| rest).trim())
        .collect()
}

/// Lines of a shell script that are not comments.
fn commands(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim).filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# X\n```sh\ncargo run --release -- quickstart\n```\nand\n```sh\ncargo test --workspace\n```\n";

    fn findings(readme: &str, ci: &str) -> Vec<String> {
        check(&Tree::of(&[(README, readme), (CI, ci)])).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_same_commands_pass() {
        assert!(findings(GOOD, "step tests cargo test --workspace\n\"$windlass\" quickstart\n").is_empty());
    }

    #[test]
    fn other_commands_are_found() {
        let ci = "# cargo test --workspace\ncargo test -p one\n./windlass quickstart\n";
        assert_eq!(
            findings(GOOD, ci),
            ["error: .ci/run: does not run the tests as README.md says: cargo test --workspace"]
        );
        assert_eq!(findings(GOOD, "cargo test --workspace\n"), ["error: .ci/run: does not run the quickstart"]);
        let other = GOOD.replace("-- quickstart", "-- help").replace("cargo test", "make test");
        assert_eq!(findings(&other, "windlass quickstart\n").len(), 2);
        assert_eq!(findings("# X\n", "").len(), 1);
        assert_eq!(check(&Tree::of(&[(README, GOOD)])).len(), 1);
    }
}

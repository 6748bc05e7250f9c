//! Every command of the binary is in the documentation.

use super::Finding;
use crate::tree::Tree;

const FOLDER: &str = "crates/cli/src/commands/";
const DOCUMENTS: [&str; 2] = ["README.md", "docs/commands.md"];

/// Checks that the name of every module of commands appears in one of the documents, as code.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let documents: Vec<&str> = DOCUMENTS.iter().filter_map(|path| tree.text(path)).collect();
    let modules = tree.files().filter_map(|(path, _)| path.strip_prefix(FOLDER).map(|rest| (path, rest)));
    modules
        .filter_map(|(path, rest)| Some((path, rest.strip_suffix(".rs")?.trim_end_matches("/mod"))))
        .filter(|(_, name)| !name.contains('/') && *name != "mod")
        .filter_map(|(path, name)| {
            let verb = name.replace('_', "-");
            let documented = documents.iter().any(|text| mentions(text, &verb));
            let message = format!("the command `{verb}` is neither in {} nor in {}", DOCUMENTS[0], DOCUMENTS[1]);
            (!documented).then(|| Finding::error(path, message))
        })
        .collect()
}

/// Whether a text names a verb as code: `verb`, `verb MODEL` or `windlass verb`.
fn mentions(text: &str, verb: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
    ["`", "windlass "].iter().any(|before| {
        let start = format!("{before}{verb}");
        text.match_indices(&start).any(|(at, _)| ends(&text[at + start.len()..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undocumented_command_is_found() {
        let readme = "Run `inspect MODEL` or\n\n    windlass convert A B\n\nand `diffuse`.";
        let tree = Tree::of(&[
            ("README.md", readme),
            ("docs/commands.md", "## `two-words`\n"),
            ("crates/cli/src/commands/mod.rs", ""),
            ("crates/cli/src/commands/inspect.rs", ""),
            ("crates/cli/src/commands/convert/mod.rs", ""),
            ("crates/cli/src/commands/convert/plan.rs", ""),
            ("crates/cli/src/commands/two_words.rs", ""),
            ("crates/cli/src/commands/diff.rs", ""),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].to_string().contains("commands/diff.rs: the command `diff` is neither"));
    }
}

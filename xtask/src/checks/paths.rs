//! No file names a place that exists on one machine only.

use super::Finding;
use crate::rust::line_of;
use crate::tree::Tree;

/// First folders of absolute paths that belong to a person or a machine.
const PRIVATE: [&str; 7] = ["home", "root", "Users", "opt", "work", "workspace", "mnt"];

/// Checks every text file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        for folder in PRIVATE {
            let pattern = format!("/{folder}/");
            for (at, _) in text.match_indices(&pattern).filter(|(at, _)| begins_path(&text[..*at])) {
                let message = format!("names a place of one machine: {pattern}...");
                findings.push(Finding::error(path, message).line(line_of(text, at)));
            }
        }
    }
    findings
}

/// Whether what stands before a slash leaves it the beginning of a path.
fn begins_path(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '}' | ')' | '~' | '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_are_found_and_others_are_not() {
        for folder in PRIVATE {
            let text = format!("one\nopen(\"/{folder}/me/model.gguf\")\n");
            let findings = check(&Tree::of(&[("script.py", &text)]));
            assert_eq!(findings.len(), 1, "{folder}");
            assert!(findings[0].to_string().starts_with("error: script.py:2: "));
        }
        let fine = "https://example.org/home/page target/work/x $HOME/work/x ./work/x /dev/shm/x /tmp/x";
        assert!(check(&Tree::of(&[("README.md", fine)])).is_empty());
    }
}

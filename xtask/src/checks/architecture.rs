//! ARCHITECTURE.md names every crate.

use super::Finding;
use crate::tree::Tree;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Checks that every folder under `crates/` stands in the document, as code.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(DOCUMENT).unwrap_or("");
    tree.manifests()
        .filter(|(folder, _)| !text.contains(&format!("`{folder}`")))
        .map(|(folder, _)| Finding::error(DOCUMENT, format!("does not name the crate `{folder}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_not_named_is_found() {
        let tree = Tree::of(&[
            (DOCUMENT, "Floor 0 is `tensor`; text comes later."),
            ("crates/tensor/Cargo.toml", ""),
            ("crates/text/Cargo.toml", ""),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].to_string(), "error: ARCHITECTURE.md: does not name the crate `text`");
    }
}

//! A source file that is long is hard to read whole.

use super::Finding;
use crate::tree::Tree;

const TOLD: usize = 600;
const REFUSED: usize = 800;

/// Checks the number of lines of every Rust file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            if lines > REFUSED {
                return Some(Finding::error(path, format!("{lines} lines, at most {REFUSED}: split it")));
            }
            (lines > TOLD).then(|| Finding::warning(path, format!("{lines} lines, better at most {TOLD}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Level;

    #[test]
    fn long_files_are_told_and_very_long_ones_refused() {
        let text = |lines| "// x\n".repeat(lines);
        let tree = Tree::of(&[
            ("a.rs", &text(REFUSED + 1)),
            ("b.rs", &text(REFUSED)),
            ("c.rs", &text(TOLD)),
            ("d.md", &text(2000)),
        ]);
        let levels: Vec<_> = check(&tree).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Error, Level::Warning]);
    }
}

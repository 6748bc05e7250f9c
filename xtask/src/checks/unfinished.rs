//! What exists is real: nothing is left for later and no test is switched off.

use super::Finding;
use crate::rust::{code, line_of};
use crate::tree::Tree;

/// In code, comments and strings do not count.
const IN_CODE: [(&str, &str); 4] = [
    (concat!("todo", "!("), "is not written yet"),
    (concat!("unimplemented", "!("), "is not written yet"),
    (concat!("dbg", "!("), "is left over from looking for an error"),
    ("#[ignore", "switches a test off"),
];

/// In the whole text.
const IN_TEXT: [&str; 2] = [concat!("FIX", "ME"), concat!("TO", "DO")];

/// Checks every Rust file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let code = code(text);
        for (word, why) in IN_CODE {
            for (at, _) in code.match_indices(word) {
                findings.push(Finding::error(path, format!("`{word}` {why}")).line(line_of(&code, at)));
            }
        }
        for word in IN_TEXT {
            for at in crate::rust::words(text, word) {
                findings.push(Finding::error(path, format!("a {word} is left")).line(line_of(text, at)));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_unfinished_work_is_found() {
        for (word, _) in IN_CODE {
            let text = format!("fn f() {{\n    {word}x);\n}}\n");
            let findings = check(&Tree::of(&[("a.rs", &text)]));
            assert_eq!(findings.len(), 1, "{word}");
            assert!(findings[0].to_string().starts_with("error: a.rs:2: "), "{word}");
        }
        for word in IN_TEXT {
            assert_eq!(check(&Tree::of(&[("a.rs", &format!("// {word}: later\n"))])).len(), 1, "{word}");
        }
    }

    #[test]
    fn words_that_only_look_alike_are_left_alone() {
        let text = format!("// a list of todos, and {}S in strings: \nlet a = \"{}\";\n", IN_TEXT[1], IN_CODE[0].0);
        assert!(check(&Tree::of(&[("a.rs", &text)])).is_empty());
    }
}

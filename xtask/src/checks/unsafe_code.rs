//! Unsafe code stays in the folders that exist for it, and every block says which invariant it relies on.

use super::Finding;
use crate::rust::{code, line_of, words};
use crate::tree::Tree;

/// Where unsafe code may be: a folder, or a module as a file or a folder.
const ALLOWED: [&str; 12] = [
    "crates/tensor/src/storage",
    "crates/quant/src/simd",
    "crates/runtime/src/device/probes",
    "crates/runtime/src/memory",
    "crates/runtime/src/scheduler",
    "crates/comm",
    "crates/cpu",
    "crates/wgpu",
    "crates/cuda",
    "crates/plugin",
    "crates/python",
    "crates/capi",
];

/// How far above a block its reason may stand, in lines.
const REACH: usize = 3;

/// Checks every `unsafe` of every Rust file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let code = code(text);
        let lines: Vec<&str> = text.lines().collect();
        for at in words(&code, "unsafe") {
            let line = line_of(&code, at);
            if !allowed(path) {
                findings.push(Finding::error(path, "unsafe code has no place in this folder").line(line));
            }
            if needs_reason(&code[at + "unsafe".len()..]) && !has_reason(&lines, line) {
                let message = format!("no `SAFETY:` line within the {REACH} lines above");
                findings.push(Finding::error(path, message).line(line));
            }
        }
    }
    findings
}

/// Programs of their own, such as a test that counts allocations, may be unsafe anywhere: nobody links them.
fn allowed(path: &str) -> bool {
    let program = ["/tests/", "/benches/"].iter().any(|folder| path.contains(folder));
    program
        || ALLOWED
            .iter()
            .any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs"))
}

/// A block, an implementation or a foreign block; not the signature of a function, whose documentation says what
/// callers owe it.
fn needs_reason(after: &str) -> bool {
    let after = after.trim_start();
    let foreign = after.strip_prefix("extern").is_some_and(|rest| rest.split('{').next().is_some_and(no_function));
    after.starts_with('{') || after.starts_with("impl") || foreign
}

fn no_function(between: &str) -> bool {
    words(between, "fn").next().is_none()
}

fn has_reason(lines: &[&str], line: usize) -> bool {
    let last = line.min(lines.len());
    lines[line.saturating_sub(REACH + 1)..last].iter().any(|text| text.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(Finding::to_string).collect()
    }

    const HERE: &str = "crates/tensor/src/storage/host.rs";

    #[test]
    fn a_block_without_a_reason_is_found() {
        let found = findings(HERE, "fn f() {\n    unsafe { g() }\n}\n");
        assert_eq!(found, [format!("error: {HERE}:2: no `SAFETY:` line within the 3 lines above")]);
        assert_eq!(findings(HERE, "unsafe impl Send for X {}\n").len(), 1);
        assert_eq!(findings(HERE, "unsafe extern \"C\" {\n    fn f();\n}\n").len(), 1);
        assert_eq!(findings(HERE, "unsafe\n{ g() }\n").len(), 1);
        assert_eq!(findings("crates/formats/tests/memory.rs", "unsafe { g() }\n").len(), 1);
        assert_eq!(findings(HERE, "// SAFETY: far away\n\n\n\nunsafe { g() }\n").len(), 1);
    }

    #[test]
    fn a_reason_near_the_block_is_enough_and_signatures_need_none() {
        assert!(findings(HERE, "// SAFETY: g has no conditions\n\n\nunsafe { g() }\n").is_empty());
        assert!(findings(HERE, "/// # Safety\nunsafe fn f() {}\ntype F = unsafe extern \"C\" fn(i32);\n").is_empty());
        assert!(findings(HERE, "// unsafe { }\nlet a = \"unsafe { }\";\n").is_empty());
    }

    #[test]
    fn unsafe_code_outside_its_folders_is_found() {
        let text = "// SAFETY: g has no conditions\nunsafe { g() }\n";
        for path in ["crates/tensor/src/tensor.rs", "crates/formats/src/lib.rs", "crates/tensor/src/storage2.rs"] {
            assert_eq!(findings(path, text), [format!("error: {path}:2: unsafe code has no place in this folder")]);
        }
        for path in [
            "crates/cuda/src/lib.rs",
            "crates/runtime/src/memory.rs",
            "crates/quant/src/simd/x86.rs",
            "crates/formats/tests/memory.rs",
        ] {
            assert!(findings(path, text).is_empty(), "{path}");
        }
    }
}

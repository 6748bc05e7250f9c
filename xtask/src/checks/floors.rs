//! A crate may use crates of lower floors only.

use super::Finding;
use super::dependencies::{dependencies, package_name};
use crate::tree::Tree;

/// Floor and crates, from the ground up.
const FLOORS: [&[&str]; 9] = [
    &["tensor"],
    &["quant", "runtime"],
    &["ops", "comm", "catalog", "text"],
    &["cpu", "wgpu", "cuda", "plugin", "nn", "formats"],
    &["models"],
    &["generate", "train", "edit"],
    &["serve"],
    &["windlass"],
    &["cli", "python", "capi"],
];

/// Checks the name of every crate and every dependency of one crate of ours on another.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, text) in tree.manifests() {
        let path = format!("crates/{folder}/Cargo.toml");
        let Some(floor) = floor(folder) else {
            findings.push(Finding::error(&path, format!("{folder:?} has no floor: give it one in xtask's table")));
            continue;
        };
        let expected = if folder == "windlass" { "windlass".to_string() } else { format!("windlass-{folder}") };
        if package_name(text) != Some(&expected) {
            findings.push(Finding::error(&path, format!("the package of this folder is called {expected:?}")));
        }
        for (line, name) in dependencies(text) {
            let Some(used) = crate_folder(&name) else { continue };
            let problem = match self::floor(used) {
                None => format!("depends on {name}, which has no floor"),
                Some(below) if below < floor => continue,
                Some(other) => format!("{folder} is on floor {floor} and may not use {used}, on floor {other}"),
            };
            findings.push(Finding::error(&path, problem).line(line));
        }
    }
    findings
}

fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|crates| crates.contains(&folder))
}

/// The folder of one of our packages.
fn crate_folder(package: &str) -> Option<&str> {
    if package == "windlass" { Some(package) } else { package.strip_prefix("windlass-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(folder: &str, dependencies: &str) -> Vec<String> {
        let name = if folder == "windlass" { folder.to_string() } else { format!("windlass-{folder}") };
        let text = format!("[package]\nname = \"{name}\"\n{dependencies}");
        check(&Tree::of(&[(&format!("crates/{folder}/Cargo.toml"), &text)])).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn lower_floors_may_be_used() {
        let text =
            "[dependencies]\nwindlass-tensor.workspace = true\nwindlass-quant = { workspace = true }\nserde = \"1\"\n";
        assert!(findings("formats", text).is_empty());
        assert!(findings("cli", "[dependencies]\nwindlass.workspace = true\n").is_empty());
    }

    #[test]
    fn equal_and_higher_floors_may_not() {
        let equal = findings("quant", "[dependencies]\nwindlass-runtime.workspace = true\n");
        assert_eq!(
            equal,
            ["error: crates/quant/Cargo.toml:4: quant is on floor 1 and may not use runtime, on floor 1"]
        );
        for higher in [
            "[dependencies]\nwindlass.workspace = true\n",
            "[dependencies.windlass-quant]\nworkspace = true\n",
            "[dev-dependencies]\nwindlass-formats.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nwindlass-cli = \"1\"\n",
            "[dependencies]\nother = { package = \"windlass-text\", version = \"1\" }\n",
        ] {
            assert_eq!(findings("tensor", higher).len(), 1, "{higher}");
        }
    }

    #[test]
    fn a_crate_without_a_floor_or_with_another_name_is_told() {
        assert!(findings("cellar", "")[0].contains("has no floor"));
        assert!(findings("tensor", "[dependencies]\nwindlass-cellar = \"1\"\n")[0].contains("has no floor"));
        let tree = Tree::of(&[("crates/tensor/Cargo.toml", "[package]\nname = \"tensor\"\n")]);
        assert!(check(&tree)[0].to_string().contains("windlass-tensor"));
    }
}

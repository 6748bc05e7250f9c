//! Versions and features of dependencies stand in one list: the workspace's.

use super::Finding;
use crate::tree::Tree;

/// Checks that every dependency of every crate is taken from the workspace.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, text) in tree.manifests() {
        for entry in entries(text).filter(|entry| !entry.from_workspace) {
            let message = format!("take {} from the workspace: `{0}.workspace = true`", entry.key);
            findings.push(Finding::error(&format!("crates/{folder}/Cargo.toml"), message).line(entry.line));
        }
    }
    findings
}

/// Line and package of every dependency in a manifest, of whatever kind.
pub fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, String)> {
    entries(manifest).map(|entry| (entry.line, entry.package))
}

/// The name that a manifest gives its package.
pub fn package_name(manifest: &str) -> Option<&str> {
    let package = manifest.split("[package]").nth(1)?;
    let line = package.lines().skip(1).take_while(|line| !line.starts_with('[')).find(|l| l.starts_with("name"))?;
    string_after(line, "name")
}

struct Entry {
    line: usize,
    key: String,
    package: String,
    from_workspace: bool,
}

/// Every dependency of a manifest as this project writes them: one line each, or a table of its own.
fn entries(manifest: &str) -> impl Iterator<Item = Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let (mut in_list, mut in_table) = (false, false);
    for (index, line) in manifest.lines().enumerate() {
        let line_text = line.split('#').next().unwrap_or("").trim();
        if let Some(header) = line_text.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            in_list = header.ends_with("dependencies");
            let table = header.rsplit_once('.').filter(|(kind, _)| kind.ends_with("dependencies"));
            in_table = table.is_some();
            if let Some((_, name)) = table {
                let key = name.trim_matches('"').to_string();
                all.push(Entry { line: index + 1, package: key.clone(), key, from_workspace: false });
            }
        } else if in_table {
            if let Some(entry) = all.last_mut() {
                entry.from_workspace |= line_text.replace(' ', "").starts_with("workspace=true");
                if let Some(package) = string_after(line_text, "package") {
                    entry.package = package.into();
                }
            }
        } else if in_list && let Some((key, value)) = line_text.split_once('=') {
            let name = key.trim().split('.').next().unwrap_or("").trim_matches('"').to_string();
            let package = string_after(value, "package").map_or_else(|| name.clone(), String::from);
            let from_workspace = format!("{key}={value}").replace(' ', "").contains("workspace=true");
            all.push(Entry { line: index + 1, key: name, package, from_workspace });
        }
    }
    all.into_iter()
}

/// The quoted string after `key =`.
fn string_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key)?.1.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_a_crate_is_found() {
        let text = "[package]\nname = \"windlass-x\"\nversion = \"1\"\n\n[dependencies]\nserde.workspace = true\n\
                    half = { workspace = true, features = [\"std\"] }\nlibc = \"0.2\" # why\n[lints]\nworkspace = true\n";
        let findings = check(&Tree::of(&[("crates/x/Cargo.toml", text)]));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].to_string(),
            "error: crates/x/Cargo.toml:8: take libc from the workspace: `libc.workspace = true`"
        );
        assert_eq!(package_name(text), Some("windlass-x"));
    }

    #[test]
    fn tables_are_read_as_well() {
        let text = "[dependencies.libc]\nversion = \"1\"\n[dev-dependencies.half]\nworkspace = true\n";
        let findings = check(&Tree::of(&[("crates/x/Cargo.toml", text)]));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().contains("take libc"));
    }
}

//! The text files of the project, read once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// Folders that are not looked into where git cannot be asked what belongs to the project.
const SKIPPED: [&str; 6] = ["target", "artifacts", "corpus", "seeds", "__pycache__", ".git"];

/// Text files by path, `/` between folders on every system.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads every text file under `root` that git does not ignore; without git, all but what builds leave behind.
    /// Files that are not UTF-8 are data and are left out.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        match listed_by_git(root) {
            Some(paths) => paths.iter().try_for_each(|path| tree.read_file(root, path))?,
            None => tree.read_folder(root, "")?,
        }
        Ok(tree)
    }

    /// A tree made of snippets, for tests.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect() }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every file: path and text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Every Rust file.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The manifest of every crate: folder under `crates/` and text.
    pub fn manifests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(|(path, text)| {
            let folder = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!folder.contains('/')).then_some((folder, text))
        })
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> io::Result<()> {
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if !entry.file_type()?.is_dir() {
                self.read_file(root, &path)?;
            } else if !SKIPPED.contains(&name.as_str()) {
                self.read_folder(root, &path)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, root: &Path, path: &str) -> io::Result<()> {
        let place = root.join(path);
        // A listed file may have been deleted since, and a link is read where it leads to.
        if place.symlink_metadata().is_ok_and(|m| m.is_file())
            && let Ok(text) = String::from_utf8(fs::read(place)?)
        {
            self.files.insert(path.into(), text);
        }
        Ok(())
    }
}

/// What git would put into a commit: tracked files, and new ones that it does not ignore.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(listed.stdout).ok().filter(|_| listed.status.success())?;
    Some(text.split_terminator('\0').map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_project_is_found_without_what_was_built() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut walked = Tree::default();
        walked.read_folder(root, "").unwrap();
        for tree in [Tree::read(root).unwrap(), walked] {
            check(&tree);
        }
    }

    fn check(tree: &Tree) {
        assert!(tree.text("xtask/src/tree.rs").is_some());
        assert!(tree.text("Cargo.toml").is_some());
        assert!(tree.files().all(|(path, _)| !path.starts_with("target/") && !path.starts_with(".git/")));
        assert!(tree.manifests().any(|(folder, text)| folder == "tensor" && text.contains("windlass-tensor")));
    }
}

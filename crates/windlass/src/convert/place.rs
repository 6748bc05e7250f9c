//! Where a target goes, and what already is there: nothing that is not of a model is ever replaced.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use windlass_formats::{Layout, Source};
use windlass_runtime::system;
use windlass_tensor::Bytes;

use crate::{Code, Error, Result};

/// The file or folder that a link stands for, as `cp` sees it: the link stays a link.
pub fn behind_links(target: &Path) -> PathBuf {
    // Without a slash at its end, which would hide that it is a link.
    let plain: PathBuf = target.components().collect();
    if plain.is_symlink() { plain.canonicalize().unwrap_or(plain) } else { plain }
}

/// The names under which the parts of a target will appear: one folder, one file, or several files.
pub fn names(target: &Path, layout: &Layout) -> Vec<PathBuf> {
    if layout.folder || layout.parts.len() == 1 {
        return vec![target.into()];
    }
    layout.parts.iter().map(|part| numbered_name(target, &part.name)).collect()
}

/// `model.gguf` and `-00001-of-00003.gguf` give `model-00001-of-00003.gguf`.
pub fn numbered_name(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.file_stem().unwrap_or_default().to_os_string();
    name.push(suffix);
    target.with_file_name(name)
}

/// `NAME` and `.partial` give `NAME.partial`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().into();
    name.push(suffix);
    path.with_file_name(name)
}

/// The folder in which a path lies.
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.into(),
        _ => PathBuf::from("."),
    }
}

/// Refuses a target that exists, is of another kind or holds what is not of a model, before anything is written.
pub fn check(target: &Path, source: &Source, layout: &Layout, overwrite: bool) -> Result<()> {
    let fail = |message: String, path: &Path, help: &str| Err(Error::new(Code::Failed, message).at(path).help(help));
    if target.is_symlink() {
        let message = format!("{} is a link to something that does not exist", target.display());
        return fail(message, target, "remove the link, or name what it should point to");
    }
    check_kind(target, layout)?;
    let stale = stale(target, layout);
    let all = names(target, layout).into_iter().chain([target.to_path_buf()]).chain(stale.iter().cloned());
    let there = all.into_iter().find(|name| name.exists());
    if let Some(there) = there.filter(|_| !overwrite) {
        let message = format!("{} exists already", there.display());
        return fail(message, &there, "choose another name, or add --overwrite");
    }
    if target.is_dir() {
        check_folder(target, source, layout)?;
    }
    if let Some(part) = source.parts().iter().find(|part| stale.iter().any(|old| same(old, part.path()))) {
        let message = format!("{} is part of the source, and would be removed", part.path().display());
        return fail(message, part.path(), "choose another name for the target");
    }
    let folder = parent(target);
    if !folder.is_dir() {
        let message = format!("the folder {} does not exist", folder.display());
        return fail(message, target, "create it first");
    }
    match disk_shortage(target, layout) {
        Some(shortage) => fail(shortage, target, "free some space, or write to another disk"),
        None => Ok(()),
    }
}

/// Why the disk is too small, if it is.
pub fn disk_shortage(target: &Path, layout: &Layout) -> Option<String> {
    let needed = bytes(layout);
    let free = system::free_space(&parent(target)).filter(|free| *free < needed)?;
    // What an earlier run left has its space already.
    let begun = with_suffix(target, ".partial").exists();
    (!begun).then(|| format!("{} needs {} on disk, {} are free", target.display(), Bytes(needed), Bytes(free)))
}

/// Bytes that the layout will take on disk.
pub fn bytes(layout: &Layout) -> u64 {
    let side: u64 = layout.files.iter().map(|(_, content)| content.len() as u64).sum();
    layout.parts.iter().map(|p| p.length).sum::<u64>() + side
}

/// What an older target of this name left that the new one does not replace: parts of another number of parts, and the
/// single file in the place of which there are parts now.
pub fn stale(target: &Path, layout: &Layout) -> Vec<PathBuf> {
    if layout.folder || layout.parts.len() == 1 {
        return Vec::new();
    }
    let new = names(target, layout);
    let stem = target.file_stem().unwrap_or_default();
    let extension = layout.parts.first().and_then(|part| Path::new(&part.name).extension()).unwrap_or_default();
    let entries = std::fs::read_dir(parent(target)).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_part = |path: &PathBuf| path.file_name().is_some_and(|name| is_part_of(name, stem, extension));
    let parts = entries.filter(is_part).filter(|path| !new.iter().any(|n| n.file_name() == path.file_name()));
    parts.chain(Some(target.to_path_buf()).filter(|t| t.is_file())).collect()
}

/// Whether a name is `STEM-00001-of-00003.EXTENSION`.
fn is_part_of(name: &OsStr, stem: &OsStr, extension: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(stem.as_encoded_bytes());
    let rest = rest.and_then(|rest| rest.strip_suffix(extension.as_encoded_bytes())?.strip_suffix(b"."));
    let Some(text) = rest.and_then(|rest| std::str::from_utf8(rest).ok()) else { return false };
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('-').and_then(|text| text.split_once("-of-")).is_some_and(|(n, of)| digits(n) && digits(of))
}

/// A file cannot take the place of a folder, nor a folder that of a file.
fn check_kind(target: &Path, layout: &Layout) -> Result<()> {
    let shown = target.display();
    let (message, help) = if target.is_dir() && !layout.folder {
        let help = format!("name a file, such as {}", target.join("model").display());
        (format!("{shown} is a folder, and the output is a file"), help)
    } else if target.is_file() && layout.folder {
        let why = "a model with its configuration and tokenizer is a folder";
        (format!("{shown} is a file, and the output is a folder: {why}"), "choose another name for the folder".into())
    } else {
        return Ok(());
    };
    Err(Error::new(Code::Failed, message).at(target).help(help))
}

/// A folder is replaced only if all of it is a model, or it is empty, and it does not hold the source.
fn check_folder(target: &Path, source: &Source, layout: &Layout) -> Result<()> {
    let fail = |message: String, help: &str| Err(Error::new(Code::Failed, message).at(target).help(help));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    if real(source.path()).starts_with(real(target)) {
        let message = format!("{} holds the source and cannot be replaced by it", target.display());
        return fail(message, "choose another name for the target");
    }
    let empty = std::fs::read_dir(target).map_err(|e| Error::io(target, e))?.next().is_none();
    if !empty && windlass_formats::detect(target).is_err() {
        let message = format!("{} is a folder that does not hold a model, so it is not replaced", target.display());
        return fail(message, "choose another name for the target");
    }
    let foreign = foreign(target, layout)?;
    if foreign.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = foreign.iter().take(5).map(String::as_str).collect();
    let more = if foreign.len() > 5 { format!(" and {} more", foreign.len() - 5) } else { String::new() };
    let message =
        format!("{} holds what is not of a model and would be lost: {}{more}", target.display(), first.join(", "));
    fail(message, "move that elsewhere, or choose another name for the target")
}

/// What of a folder is neither weights, nor written anew, nor a file that models usually have.
fn foreign(target: &Path, layout: &Layout) -> Result<Vec<String>> {
    let old = windlass_formats::open(target, &windlass_tensor::Limits::default()).ok();
    let parts = old.iter().flat_map(Source::parts).filter_map(|part| part.path().file_name());
    let parts: Vec<&OsStr> = parts.collect();
    let mut foreign = Vec::new();
    for entry in std::fs::read_dir(target).map_err(|e| Error::io(target, e))? {
        let entry = entry.map_err(|e| Error::io(target, e))?;
        let name = entry.file_name();
        let written = layout.parts.iter().map(|p| &p.name).chain(layout.files.iter().map(|(name, _)| name));
        let known = name.to_str().is_some_and(windlass_formats::safetensors::is_model_file);
        let ours = parts.contains(&name.as_os_str()) || written.into_iter().any(|w| name == w.as_str()) || known;
        let kept = if entry.path().is_dir() { is_module(&entry.path()) } else { ours };
        if !kept {
            foreign.push(name.to_string_lossy().into_owned());
        }
    }
    foreign.sort();
    Ok(foreign)
}

/// Whether a folder holds the configuration of a module after the model, and nothing else.
fn is_module(folder: &Path) -> bool {
    let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    windlass_formats::safetensors::is_module_file(&format!("{name}/config.json")) && names == ["config.json"]
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(a).is_some() && real(a) == real(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name_are_told_from_others() {
        let is = |name: &str| is_part_of(name.as_ref(), "m".as_ref(), "gguf".as_ref());
        assert!(is("m-00001-of-00003.gguf"));
        for other in
            ["m.gguf", "mm-00001-of-00003.gguf", "m-q8-00001-of-00003.gguf", "m-1-of-3.gguf", "m-00001-of-00003.bin"]
        {
            assert!(!is(other), "{other}");
        }
    }
}

//! Models named as on the Hugging Face hub, found in its local cache. Nothing is downloaded.

use std::path::{Path, PathBuf};

use crate::{Error, Problem};

/// The path of a model: `hf:ORG/NAME` or `hf:ORG/NAME@REVISION` in the local cache, anything else as it is.
pub fn resolve_model(path_or_hf: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let path = path_or_hf.as_ref().to_path_buf();
    // What is not UTF-8 is the name of a file.
    let text = path.to_str().unwrap_or_default();
    if let Some(id) = text.strip_prefix("hf:") {
        return resolve_in(&cache_folder()?, id);
    }
    if !path.exists() && parse_id(text).is_ok() {
        let message = format!("there is no such file or folder; for the model of the Hugging Face hub write hf:{text}");
        return Err(Error::Unknown { path, message });
    }
    Ok(path)
}

/// Finds the model `id` (`ORG/NAME` or `ORG/NAME@REVISION`) in the cache folder `cache`.
pub fn resolve_in(cache: &Path, id: &str) -> Result<PathBuf, Error> {
    let unknown = |path: &Path, message: String| Error::Unknown { path: path.into(), message };
    let (name, revision) = parse_id(id).map_err(|message| unknown(Path::new(id), message))?;
    let how = match revision {
        Some(revision) => format!("download it with `hf download {name} --revision {revision}`"),
        None => format!("download it with `hf download {name}`"),
    };
    let folder = cache.join(format!("models--{}", name.replace('/', "--")));
    if !folder.is_dir() {
        return Err(unknown(&folder, format!("{name} is not in the local Hugging Face cache: {how}")));
    }
    let wanted = revision.unwrap_or("main");
    let reference = folder.join("refs").join(wanted);
    let commit = match reference.is_file() {
        true => String::from_utf8_lossy(&crate::files::read_small(&reference, 256)?).trim().to_string(),
        false => wanted.to_string(),
    };
    if !is_plain(&commit) {
        let message = "does not hold the name of a snapshot";
        return Err(Error::refused(&reference, Problem::new("bad-reference", message).help(how)));
    }
    let snapshot = folder.join("snapshots").join(&commit);
    if !snapshot.is_dir() {
        return Err(unknown(
            &snapshot,
            format!("there is no snapshot {commit:?} of {name} (looked up {wanted:?}): {how}"),
        ));
    }
    Ok(snapshot)
}

/// Where the hub's programs keep models, by the same environment variables in the same order.
fn cache_folder() -> Result<PathBuf, Error> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    let found = variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|p| p.join("huggingface/hub")))
        .or_else(|| home().map(|p| p.join(".cache/huggingface/hub")));
    found.ok_or_else(|| {
        let message = "no cache folder: set HF_HOME or HF_HUB_CACHE".to_string();
        Error::Unknown { path: "hf:".into(), message }
    })
}

/// `ORG/NAME` and the revision behind an `@`.
fn parse_id(id: &str) -> Result<(&str, Option<&str>), String> {
    let (name, revision) = id.split_once('@').map_or((id, None), |(name, revision)| (name, Some(revision)));
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() != 2 || !parts.iter().chain(&revision).all(|part| is_plain(part)) {
        return Err("expected hf:ORG/NAME or hf:ORG/NAME@REVISION".into());
    }
    Ok((name, revision))
}

/// Whether this names one file or folder and cannot lead out of its parent.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=96).contains(&part.len()) && part.chars().all(allowed) && !part.starts_with(['.', '-']) && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_its_reference() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--name");
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::create_dir_all(folder.join("snapshots/abc123")).unwrap();
        std::fs::write(folder.join("refs/main"), "abc123\n").unwrap();
        let snapshot = folder.join("snapshots/abc123");
        assert_eq!(resolve_in(cache.path(), "org/name").unwrap(), snapshot);
        assert_eq!(resolve_in(cache.path(), "org/name@abc123").unwrap(), snapshot);
        let error = resolve_in(cache.path(), "org/name@v2").unwrap_err().to_string();
        assert!(error.contains("--revision v2") && error.contains("snapshots"), "{error}");
        let error = resolve_in(cache.path(), "org/other").unwrap_err().to_string();
        assert!(error.contains("hf download org/other") && error.contains("models--org--other"), "{error}");
        std::fs::write(folder.join("refs/main"), "../../../etc").unwrap();
        assert!(matches!(resolve_in(cache.path(), "org/name"), Err(Error::Refused { .. })));
    }

    #[test]
    fn names_cannot_lead_out_of_the_cache() {
        for id in ["", "name", "../x", "a/..", "a/b/c", "/etc/passwd", "a/b@../c", "a/-x", "a/b@"] {
            assert!(resolve_in(Path::new("/nonexistent"), id).unwrap_err().to_string().contains("expected"), "{id}");
        }
    }

    #[test]
    fn a_path_stays_a_path() {
        assert_eq!(resolve_model("./x.gguf").unwrap(), PathBuf::from("./x.gguf"));
        let error = resolve_model("org-that-is-not/here").unwrap_err().to_string();
        assert!(error.contains("hf:org-that-is-not/here"), "{error}");
    }
}

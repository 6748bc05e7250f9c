//! What the attacks on folders and archives have in common: their files are committed and each must be refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use windlass_formats::{Error, container};
use windlass_tensor::Limits;

/// A file, or a folder of files.
pub struct Attack {
    /// Name of the file or folder.
    pub name: &'static str,
    pub idea: &'static str,
    /// What the message must contain.
    pub stopped_by: &'static str,
    /// One file without a name, or the files of a folder.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// A file that attacks.
pub fn file(name: &'static str, idea: &'static str, stopped_by: &'static str, bytes: Vec<u8>) -> Attack {
    Attack { name, idea, stopped_by, files: vec![("", bytes)] }
}

fn folder(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attacks").join(reader)
}

fn page(reader: &str, attacks: &[Attack]) -> String {
    let mut page = format!(
        "# Attacks on the {reader} reader\n\nMade by `crates/formats/tests/{reader}_attacks.rs`; do not edit. After a \
         change there run `WINDLASS_BLESS=1 cargo test -p windlass-formats --test {reader}_attacks`.\n\n\
         | file | idea | the message that stops it |\n|---|---|---|\n"
    );
    for attack in attacks {
        page += &format!("| `{}` | {} | {} |\n", attack.name, attack.idea, attack.stopped_by.replace('|', "\\|"));
    }
    page
}

/// Compares the committed files with the list; writes them first if `WINDLASS_BLESS` is set.
pub fn assert_committed(reader: &str, attacks: &[Attack]) {
    let mut expected = vec![(folder(reader).join("README.md"), page(reader, attacks).into_bytes())];
    for attack in attacks {
        let path = folder(reader).join(attack.name);
        let files = attack.files.iter();
        expected
            .extend(files.map(|(name, b)| (if name.is_empty() { path.clone() } else { path.join(name) }, b.clone())));
    }
    if std::env::var_os("WINDLASS_BLESS").is_some() {
        let _ = std::fs::remove_dir_all(folder(reader));
        for (path, bytes) in &expected {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    for (path, bytes) in &expected {
        assert_eq!(&std::fs::read(path).unwrap(), bytes, "{} differs from its builder", path.display());
    }
    let expected: BTreeSet<_> = expected.into_iter().map(|(path, _)| path).collect();
    assert_eq!(files_under(&folder(reader)), expected, "a file has no builder, or two builders have one name");
}

fn files_under(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files_under(&path)) } else { all.extend([path]) }
    }
    all
}

/// Each attack must be refused, for its own reason, by an error that names the file.
pub fn assert_refused(reader: &str, attacks: &[Attack]) {
    assert_refused_by(reader, attacks, |path| match container(reader) {
        Some(container) => container.open(path, &Limits::default()),
        None => windlass_formats::open(path, &Limits::default()),
    });
}

/// The same, of what `read` does with a path.
pub fn assert_refused_by<T: std::fmt::Debug>(
    reader: &str,
    attacks: &[Attack],
    read: impl Fn(&Path) -> Result<T, Error>,
) {
    for attack in attacks {
        let path = folder(reader).join(attack.name);
        let error = read(&path).expect_err(attack.name);
        assert!(matches!(error, Error::Refused { .. }), "{}: {error:?}", attack.name);
        let message = error.to_string();
        assert!(message.contains(attack.stopped_by), "{}: {message}", attack.name);
        assert!(message.contains(attack.name), "no file named: {message}");
        assert!(message.len() < 1000, "{}: {message}", attack.name);
    }
}

/// A valid file cut anywhere must be refused, and any byte of it may change without a panic.
pub fn assert_robust<T, E>(whole: &[u8], parse: impl Fn(&[u8]) -> Result<T, E>) {
    assert!(parse(whole).is_ok());
    for length in 0..whole.len() {
        assert!(parse(&whole[..length]).is_err(), "{length} bytes");
    }
    for (i, byte) in (0..whole.len()).flat_map(|i| (0..=255).map(move |byte| (i, byte))) {
        let mut bytes = whole.to_vec();
        bytes[i] = byte;
        let _ = parse(&bytes);
    }
}

//! What a container must be able to do, and the list of all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use windlass_catalog::Convention;
use windlass_quant::arrange::ArrangementRef;
use windlass_tensor::{Element, Limits, Metadata};

use crate::{Error, Extent, Problem, Source};

/// A registered container.
pub type ContainerRef = &'static dyn Container;

/// A file format for models.
pub trait Container: Send + Sync {
    /// Lower case, as on the command line: `gguf`.
    fn name(&self) -> &'static str;

    /// One line for `windlass formats`.
    fn description(&self) -> &'static str;

    /// Which convention its tensor names follow.
    fn convention(&self) -> Convention;

    /// Whether what `probe` saw is this container. Judged by content, never by extension.
    fn detect(&self, probe: &Probe) -> bool;

    /// Reads the headers of the file or folder at `path` and checks them.
    fn open(&self, path: &Path, limits: &Limits) -> Result<Source, Error>;

    /// Every rule of the format that opening did not check already; all problems, not just the first.
    fn verify(&self, source: &Source, limits: &Limits) -> Result<Vec<Problem>, Error>;

    /// Whether a tensor of this element can be written. `false` for all where the container is only read.
    fn can_hold(&self, element: &Element) -> bool;

    /// Whether it is read as checkpoints of the libraries that quantize ([`crate::libraries`]).
    fn joins_libraries(&self) -> bool {
        false
    }

    /// Fixes every byte of the output but the tensors' own.
    fn layout(&self, target: &Target) -> Result<Layout, Error>;
}

/// What detection may look at.
pub struct Probe {
    /// The path that was given.
    pub path: PathBuf,
    /// The first bytes (up to 4096) of the file; empty for a folder.
    pub head: Vec<u8>,
    /// Bytes of the file; 0 for a folder.
    pub length: u64,
    /// Names of the files in the folder, sorted; empty for a file.
    pub files: Vec<String>,
}

/// A model to be written: everything but the values.
#[derive(Debug, Default)]
pub struct Target {
    pub tensors: Vec<TargetTensor>,
    /// GGUF keys; `__metadata__` of safetensors.
    pub metadata: Metadata,
    /// Side files of folder containers: name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Largest number of bytes of tensors in one part; unlimited if `None`.
    pub part_size: Option<u64>,
}

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct TargetTensor {
    /// In the container's convention.
    pub name: String,
    pub element: Element,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
}

/// The output with its tensors left blank: parts with their heads, and where each plane goes.
#[derive(Debug, Default)]
pub struct Layout {
    /// Whether the target is a folder; otherwise it is the single part (or a set of parts beside each other).
    pub folder: bool,
    /// Each part: its name, the bytes it begins with, and its full length. Bytes in no extent, not in
    /// the head and not constant are zero.
    pub parts: Vec<LayoutPart>,
    /// For each tensor of the target, in the same order, an extent for each plane.
    pub tensors: Vec<Vec<Extent>>,
    /// For tensors whose planes are not stored plane by plane: how they are. The extents above are then of its arrays.
    pub arrangements: BTreeMap<usize, ArrangementRef>,
    /// Side files of a folder.
    pub files: Vec<(String, Vec<u8>)>,
    /// Keys and files of the target that the container has no place for.
    pub left_out: Vec<String>,
}

/// One file of a [`Layout`].
#[derive(Debug)]
pub struct LayoutPart {
    /// In a folder: the file's name. Otherwise what follows the stem of the target's own name: empty for a single file,
    /// which keeps the name it was given; `-00001-of-00003.gguf` for one of a set (`DIR/model.gguf` becomes
    /// `DIR/model-00001-of-00003.gguf`).
    pub name: String,
    pub head: Vec<u8>,
    pub length: u64,
    /// Bytes that are fixed beside the head, with their offsets: small arrays that describe others.
    pub constants: Vec<(u64, Vec<u8>)>,
    /// What is computed of the finished part and written into it last.
    pub checksums: Vec<Checksum>,
}

/// The CRC-32 of a range of a part (as zips have it), and the two places where it is written, little-endian.
#[derive(Clone, Debug)]
pub struct Checksum {
    pub start: u64,
    pub length: u64,
    pub places: [u64; 2],
}

impl Checksum {
    /// Of what the file has there now.
    pub fn of(&self, file: &std::fs::File) -> std::io::Result<u32> {
        let (mut crc, mut done) = (0, 0);
        let mut buffer = vec![0; self.length.min(1 << 20) as usize];
        while done < self.length {
            let piece = (self.length - done).min(buffer.len() as u64);
            let bytes = &mut buffer[..piece as usize];
            crate::files::read_exact_at(file, bytes, self.start + done)?;
            crc = crate::zip::crc32(crc, bytes);
            done += piece;
        }
        Ok(crc)
    }
}

impl LayoutPart {
    /// A part without constants and checksums.
    pub fn new(name: String, head: Vec<u8>, length: u64) -> Self {
        Self { name, head, length, constants: Vec::new(), checksums: Vec::new() }
    }
}

static USER: RwLock<Vec<ContainerRef>> = RwLock::new(Vec::new());

/// All containers: those registered from outside are asked first, so that they can refine a built-in one.
pub fn containers() -> Vec<ContainerRef> {
    let mut all = USER.read().unwrap_or_else(|e| e.into_inner()).clone();
    all.extend(crate::BUILT_IN.iter().copied());
    all
}

/// The container of this name.
pub fn container(name: &str) -> Option<ContainerRef> {
    containers().into_iter().find(|c| c.name().eq_ignore_ascii_case(name))
}

/// Adds a container of one's own.
pub fn register(container: Box<dyn Container>) -> ContainerRef {
    let leaked: ContainerRef = Box::leak(container);
    USER.write().unwrap_or_else(|e| e.into_inner()).push(leaked);
    leaked
}

/// Finds the container of a path by its content.
pub fn detect(path: &Path) -> Result<ContainerRef, Error> {
    let probe = Probe::new(path)?;
    containers().into_iter().find(|c| c.detect(&probe)).ok_or_else(|| probe.explain())
}

/// Opens a model of any registered container.
pub fn open(path: &Path, limits: &Limits) -> Result<Source, Error> {
    detect(path)?.open(path, limits)
}

impl Probe {
    /// Looks at a file's first bytes, or at a folder's file names.
    pub fn new(path: &Path) -> Result<Probe, Error> {
        use std::io::Read;
        let mut probe = Probe { path: path.into(), head: Vec::new(), length: 0, files: Vec::new() };
        let kind = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if kind.is_dir() {
            for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))?.take(100_000) {
                let entry = entry.map_err(|e| Error::io(path, e))?;
                probe.files.extend(entry.file_name().into_string());
            }
            probe.files.sort();
        } else {
            let file = crate::files::open(path)?;
            file.take(4096).read_to_end(&mut probe.head).map_err(|e| Error::io(path, e))?;
            probe.length = kind.len();
        }
        Ok(probe)
    }

    /// Whether the folder has a file of this name.
    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|f| f == file)
    }

    fn explain(&self) -> Error {
        let message = if self.has("qmodel.pt") {
            "qmodel.pt is HQQ's pickle of Python objects, which is not read: load it with hqq and save it with \
             save_to_safetensors"
                .to_string()
        } else if self.path.is_dir() {
            "no model found in this folder: expected *.safetensors, *.gguf, weights.npz or pytorch_model.bin"
                .to_string()
        } else if self.length == 0 {
            "the file is empty: the download did not start, or failed".to_string()
        } else if self.head.starts_with(b"version https://git-lfs") {
            "this is a Git LFS pointer, not the model: run `git lfs pull` in its folder".to_string()
        } else if self.head.starts_with(b"<!DOCTYPE") || self.head.starts_with(b"<html") {
            "this is a web page, not a model: the download was redirected, or needs a login".to_string()
        } else {
            let names: Vec<_> = containers().iter().map(|c| c.name()).collect();
            format!("not recognised as any of: {}", names.join(", "))
        };
        Error::Unknown { path: self.path.clone(), message }
    }
}

//! Helpers around models on disk: checksums, rewriting, safetensors files by hand.

use std::path::{Path, PathBuf};

use windlass_formats::{Container, Layout, Source, Target, TargetTensor};
use windlass_tensor::Limits;

/// A golden file or folder.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// FNV-1a with 64 bits, as the scripts that make the golden files write it.
pub fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Each plane of a tensor.
pub fn planes(source: &Source, name: &str) -> Vec<Vec<u8>> {
    let entry = source.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
    let read = |(i, extent): (usize, &windlass_formats::Extent)| {
        let mut bytes = vec![0; extent.length as usize];
        source.read(entry, i, 0, &mut bytes).unwrap();
        bytes
    };
    entry.planes().iter().enumerate().map(read).collect()
}

/// A target with everything that a source has.
pub fn target(source: &Source, part_size: Option<u64>) -> Target {
    let tensors = source.tensors().iter().map(|t| TargetTensor {
        name: t.name().into(),
        element: t.element().clone(),
        shape: t.shape().to_vec(),
    });
    let limits = Limits::default();
    let files =
        source.side_files().keys().map(|name| (name.clone(), source.side_file(name, &limits).unwrap().unwrap()));
    Target { tensors: tensors.collect(), metadata: source.metadata().clone(), files: files.collect(), part_size }
}

/// Writes what `container` lays out for the tensors of `source` to `path`; gives the layout.
pub fn write(container: &dyn Container, source: &Source, target: &Target, path: &Path) -> Layout {
    let layout = container.layout(target).unwrap();
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in &layout.parts {
        let mut bytes = part.head.clone();
        bytes.resize(part.length as usize, 0);
        parts.push(bytes);
    }
    for (tensor, extents) in target.tensors.iter().zip(&layout.tensors) {
        for (bytes, extent) in planes(source, &tensor.name).iter().zip(extents) {
            let place = extent.offset as usize..(extent.offset + extent.length) as usize;
            parts[extent.part][place].copy_from_slice(bytes);
        }
    }
    if !layout.folder {
        std::fs::write(path, &parts[0]).unwrap();
        return layout;
    }
    std::fs::create_dir_all(path).unwrap();
    for (part, bytes) in layout.parts.iter().zip(&parts) {
        std::fs::write(path.join(&part.name), bytes).unwrap();
    }
    for (name, bytes) in &layout.files {
        std::fs::write(path.join(name), bytes).unwrap();
    }
    layout
}

//! The target on disk: built under another name, complete or absent.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use windlass_formats::{Checksum, Layout};

use super::place::{numbered_name, parent, with_suffix};
use crate::{Code, Error, Result};

/// A target under construction, `NAME.partial` beside its final place.
pub struct Partial {
    target: PathBuf,
    partial: PathBuf,
    folder: bool,
    /// Final file name of each part and its temporary path.
    parts: Vec<(PathBuf, PathBuf)>,
    pub files: Vec<File>,
    /// Written last, so that an unfinished part is not taken for a model.
    heads: Vec<Vec<u8>>,
    constants: Vec<Vec<(u64, Vec<u8>)>>,
    checksums: Vec<Vec<Checksum>>,
    /// Files of an older target that the new one leaves without meaning.
    pub stale: Vec<PathBuf>,
}

impl Partial {
    /// Where the journal of a target lies.
    pub fn journal_path(target: &Path) -> PathBuf {
        with_suffix(target, ".partial.journal")
    }

    /// Whether an earlier run left every part at its full length.
    pub fn intact(target: &Path, layout: &Layout) -> bool {
        let partial = with_suffix(target, ".partial");
        let single = !layout.folder && layout.parts.len() == 1;
        layout.parts.iter().all(|part| {
            let path = if single { partial.clone() } else { partial.join(&part.name) };
            std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == part.length)
        })
    }

    /// Creates the parts at full length. With `keep`, bytes of an earlier run stay in place.
    pub fn create(target: &Path, layout: &Layout, keep: bool) -> Result<Partial> {
        let partial = with_suffix(target, ".partial");
        if !keep {
            remove(&partial);
        }
        Partial::create_files(target, layout, partial.clone()).map_err(|mut error| {
            error.resumable = keep;
            if !keep {
                remove(&partial);
            }
            error
        })
    }

    fn create_files(target: &Path, layout: &Layout, partial: PathBuf) -> Result<Partial> {
        let folder = layout.folder || layout.parts.len() != 1;
        if folder {
            std::fs::create_dir_all(&partial).map_err(|e| Error::io(&partial, e))?;
        }
        let mut this = Partial {
            target: target.into(),
            partial,
            folder: layout.folder,
            parts: Vec::new(),
            files: Vec::new(),
            heads: Vec::new(),
            constants: Vec::new(),
            checksums: Vec::new(),
            stale: Vec::new(),
        };
        for part in &layout.parts {
            let (name, path) = match (folder, layout.folder) {
                (false, _) => (target.to_path_buf(), this.partial.clone()),
                (true, true) => (PathBuf::from(&part.name), this.partial.join(&part.name)),
                (true, false) => (numbered_name(target, &part.name), this.partial.join(&part.name)),
            };
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(|e| Error::io(&path, e))?;
            file.set_len(part.length).map_err(|e| Error::io(&path, e))?;
            this.parts.push((name, path));
            this.files.push(file);
            this.heads.push(part.head.clone());
            this.constants.push(part.constants.clone());
            this.checksums.push(part.checksums.clone());
        }
        for (name, content) in &layout.files {
            if layout.parts.iter().any(|part| part.name == *name) {
                let message = format!("the side file {name:?} has the name of a part of the model");
                return Err(Error::new(Code::Refused, message).at(target));
            }
            let path = this.partial.join(name);
            let folder = parent(&path);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            std::fs::write(&path, content).map_err(|e| Error::io(&path, e))?;
        }
        Ok(this)
    }

    /// Writes what makes the parts a model, so that it can be opened where it is: [`Partial::model`].
    pub fn seal(&self) -> Result<()> {
        for (i, ((_, path), file)) in self.parts.iter().zip(&self.files).enumerate() {
            let fixed = self.constants[i].iter().map(|(offset, bytes)| (*offset, bytes));
            for (offset, bytes) in fixed.chain([(0, &self.heads[i])]) {
                write_all_at(file, bytes, offset).map_err(|e| Error::io(path, e))?;
            }
            for checksum in &self.checksums[i] {
                let crc = checksum.of(file).map_err(|e| Error::io(path, e))?.to_le_bytes();
                let mut places = checksum.places.iter();
                places.try_for_each(|place| write_all_at(file, &crc, *place)).map_err(|e| Error::io(path, e))?;
            }
        }
        Ok(())
    }

    /// Where the model is until it is published: the file, the folder, or the first of several files.
    pub fn model(&self) -> PathBuf {
        match self.parts.first() {
            Some((_, path)) if !self.folder => path.clone(),
            _ => self.partial.clone(),
        }
    }

    /// Waits until the disk has everything, calls `synced`, then gives the target its name. Returns the time of that.
    pub fn publish(self, synced: impl FnOnce()) -> Result<Duration> {
        let start = Instant::now();
        self.seal()?;
        for ((_, path), file) in self.parts.iter().zip(&self.files) {
            file.sync_all().map_err(|e| Error::io(path, e))?;
        }
        synced();
        let io = |e| Error::io(&self.target, e);
        if !self.folder && self.partial.is_dir() {
            for (name, path) in &self.parts {
                std::fs::rename(path, name).map_err(io)?;
            }
            std::fs::remove_dir(&self.partial).map_err(io)?;
            self.stale.iter().for_each(|old| remove(old));
        } else if self.target.is_dir() {
            // A folder cannot be replaced by one rename: the old one steps aside until the new one is in place.
            let aside = with_suffix(&self.target, &format!(".old-{}", std::process::id()));
            if aside.exists() {
                return Err(Error::new(Code::Failed, format!("{} is in the way", aside.display())).at(&aside));
            }
            std::fs::rename(&self.target, &aside).map_err(io)?;
            std::fs::rename(&self.partial, &self.target).map_err(io)?;
            remove(&aside);
        } else {
            std::fs::rename(&self.partial, &self.target).map_err(io)?;
        }
        if let Ok(folder) = File::open(parent(&self.target)) {
            let _ = folder.sync_all();
        }
        Ok(start.elapsed())
    }

    /// Removes what was written.
    pub fn discard(self) {
        remove(&self.partial);
    }
}

/// Writes all of `bytes` at `offset`.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

/// Writes a whole layout whose tensors are in memory: `content` gives the bytes of each tensor's single plane.
pub fn write_layout(target: &Path, layout: &Layout, content: impl Fn(usize) -> Result<Vec<u8>>) -> Result<()> {
    let partial = Partial::create(target, layout, false)?;
    for (index, extents) in layout.tensors.iter().enumerate() {
        let bytes = content(index)?;
        if let Some(extent) = extents.first() {
            write_all_at(&partial.files[extent.part], &bytes, extent.offset).map_err(|e| Error::io(target, e))?;
        }
    }
    partial.publish(|| ()).map(|_| ())
}

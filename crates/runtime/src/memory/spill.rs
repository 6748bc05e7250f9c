//! Cold bytes on disk, which come back when they are touched.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use windlass_tensor::storage::{Buffer as TensorBuffer, Kind, RawHandle};
use windlass_tensor::{Error as TensorError, Storage};

use super::{Buffer, Pool};
use crate::{Error, monitor, system};

/// Bytes that are compressed and stored as one piece.
const PIECE: usize = 1 << 20;

/// A file without a name for cold bytes. The system frees it when the last buffer in it is dropped, or the process ends.
#[derive(Clone)]
pub struct SpillFile {
    shared: Arc<Shared>,
}

/// How to spill.
#[derive(Clone, Copy, Debug)]
pub struct SpillOptions {
    /// Compress with lz4 what becomes smaller by it: plain floats and zeros do, packed weights hardly.
    pub compress: bool,
    /// The most bytes that the file may have.
    pub limit: u64,
}

/// True figures of a spill file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillStatistics {
    /// Of the buffers that are spilled, as they were in memory.
    pub spilled: u64,
    /// What they take in the file.
    pub stored: u64,
    /// Length of the file: stored, or free for what comes.
    pub file: u64,
    /// Read back from the file so far.
    pub read: u64,
}

struct Shared {
    file: File,
    folder: PathBuf,
    pool: Pool,
    options: SpillOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    statistics: SpillStatistics,
    /// Lengths of the gaps by their offset; neighbours are joined.
    gaps: BTreeMap<u64, u64>,
}

/// Bytes that lie in a [`SpillFile`] until they are touched, and in a pooled buffer from then on.
pub struct SpilledBuffer {
    file: SpillFile,
    owner: &'static str,
    length: usize,
    pieces: Vec<Piece>,
    warm: OnceLock<Buffer>,
    /// Held while the bytes are read, so that they are read once.
    loading: Mutex<Option<String>>,
    /// Whether the warm bytes may differ from the file's.
    changed: bool,
}

/// Where one piece lies. It is compressed if it is shorter than its bytes.
#[derive(Clone, Copy)]
struct Piece {
    offset: u64,
    stored: usize,
    bytes: usize,
}

impl SpillFile {
    /// A new file in `folder`, whose buffers come back into buffers of `pool`.
    pub fn create(folder: &Path, pool: Pool, options: SpillOptions) -> Result<SpillFile, Error> {
        let file = tempfile::tempfile_in(folder).map_err(|source| io_error(folder, source))?;
        let (folder, state) = (folder.to_path_buf(), Mutex::default());
        Ok(SpillFile { shared: Arc::new(Shared { file, folder, pool, options, state }) })
    }

    /// Copies `storage` to the file. Its memory is free once its last handle is dropped, which is up to the caller;
    /// `owner` is who the bytes are taken for when they come back.
    pub fn spill(&self, owner: &'static str, storage: &Storage) -> Result<SpilledBuffer, Error> {
        let read = |offset: usize, target: &mut [u8]| storage.read(offset, target).map_err(Error::Tensor);
        let pieces = self.write(owner, storage.len(), read)?;
        let (warm, loading) = (OnceLock::new(), Mutex::default());
        Ok(SpilledBuffer { file: self.clone(), owner, length: storage.len(), pieces, warm, loading, changed: false })
    }

    /// What the file holds now.
    pub fn statistics(&self) -> SpillStatistics {
        self.lock().statistics
    }

    fn write(
        &self,
        owner: &'static str,
        length: usize,
        read: impl Fn(usize, &mut [u8]) -> Result<(), Error>,
    ) -> Result<Vec<Piece>, Error> {
        let _span = monitor::span("spill", "memory").with("owner", owner).with("bytes", length);
        let mut plain = self.shared.pool.try_take("a piece to spill", length.min(PIECE))?;
        let mut packed =
            vec![0; if self.shared.options.compress { lz4_flex::block::get_maximum_output_size(PIECE) } else { 0 }];
        let mut pieces = Vec::with_capacity(length.div_ceil(PIECE));
        for offset in (0..length).step_by(PIECE) {
            let plain = &mut plain[..(length - offset).min(PIECE)];
            let written = read(offset, plain).and_then(|()| self.write_piece(plain, &mut packed));
            match written {
                Ok(piece) => pieces.push(piece),
                Err(error) => {
                    self.free(&pieces);
                    return Err(error);
                }
            }
        }
        Ok(pieces)
    }

    fn write_piece(&self, plain: &[u8], packed: &mut [u8]) -> Result<Piece, Error> {
        let stored = match lz4_flex::block::compress_into(plain, packed) {
            Ok(length) if length < plain.len() => &packed[..length],
            // Without room for the output there is no compression either.
            _ => plain,
        };
        let piece = Piece { offset: self.place(stored.len() as u64)?, stored: stored.len(), bytes: plain.len() };
        self.lock().statistics.spilled += plain.len() as u64;
        if let Err(source) = system::write_all_at(&self.shared.file, stored, piece.offset) {
            self.free(&[piece]);
            return Err(io_error(&self.shared.folder, source));
        }
        Ok(piece)
    }

    /// Room for `length` bytes: the first gap that is large enough, or the end of the file.
    fn place(&self, length: u64) -> Result<u64, Error> {
        let limit = self.shared.options.limit;
        let mut state = self.lock();
        let gap = state.gaps.iter().find(|(_, gap)| **gap >= length).map(|(offset, gap)| (*offset, *gap));
        let offset = match gap {
            Some((offset, gap)) => {
                state.gaps.remove(&offset);
                if gap > length {
                    state.gaps.insert(offset + length, gap - length);
                }
                offset
            }
            None => {
                let offset = state.statistics.file;
                let available = limit.saturating_sub(offset);
                if length > available {
                    return Err(Error::OutOfMemory { owner: "the spill file", requested: length, available, limit });
                }
                state.statistics.file += length;
                offset
            }
        };
        state.statistics.stored += length;
        Ok(offset)
    }

    fn free(&self, pieces: &[Piece]) {
        let mut state = self.lock();
        for piece in pieces {
            state.statistics.stored -= piece.stored as u64;
            state.statistics.spilled -= piece.bytes as u64;
            let (mut offset, mut length) = (piece.offset, piece.stored as u64);
            if let Some(next) = state.gaps.remove(&(offset + length)) {
                length += next;
            }
            if let Some((&before, &gap)) = state.gaps.range(..offset).next_back()
                && before + gap == offset
            {
                (offset, length) = (before, gap + length);
            }
            state.gaps.insert(offset, length);
        }
    }

    /// Reads a piece into `target`, which has its length. `packed` is room for its compressed form.
    fn read_piece(&self, piece: Piece, packed: &mut Vec<u8>, target: &mut [u8]) -> Result<(), Error> {
        let io = |source| io_error(&self.shared.folder, source);
        self.lock().statistics.read += piece.stored as u64;
        if piece.stored == piece.bytes {
            return system::read_exact_at(&self.shared.file, target, piece.offset).map_err(io);
        }
        packed.resize(piece.stored, 0);
        system::read_exact_at(&self.shared.file, packed, piece.offset).map_err(io)?;
        match lz4_flex::block::decompress_into(packed, target) {
            Ok(length) if length == target.len() => Ok(()),
            _ => Err(io(std::io::Error::new(std::io::ErrorKind::InvalidData, "spilled data changed on disk"))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpilledBuffer {
    /// Whether the bytes are in memory.
    pub fn is_warm(&self) -> bool {
        self.warm.get().is_some()
    }

    /// Brings the bytes back into memory, if they are not there. An error if the pool has no room or the disk fails;
    /// it may be tried again.
    pub fn touch(&self) -> Result<&[u8], Error> {
        if let Some(warm) = self.warm.get() {
            return Ok(warm);
        }
        let mut failure = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(warm) = self.warm.get() {
            return Ok(warm);
        }
        match self.load() {
            Ok(loaded) => {
                *failure = None;
                Ok(self.warm.get_or_init(|| loaded))
            }
            Err(error) => {
                *failure = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Gives the memory back. What was written since goes to the file first. No storage may hold the buffer: keep it in
    /// an `Arc`, and get it back with `Arc::get_mut` when the tensors on it are gone.
    pub fn cool(&mut self) -> Result<(), Error> {
        if let (true, Some(warm)) = (self.changed, self.warm.get()) {
            let read = |offset: usize, target: &mut [u8]| {
                target.copy_from_slice(&warm[offset..offset + target.len()]);
                Ok(())
            };
            let pieces = self.file.write(self.owner, self.length, read)?;
            self.file.free(&std::mem::replace(&mut self.pieces, pieces));
        }
        self.changed = false;
        self.warm = OnceLock::new();
        Ok(())
    }

    fn load(&self) -> Result<Buffer, Error> {
        let _span = monitor::span("unspill", "memory").with("owner", self.owner).with("bytes", self.length);
        let mut buffer = self.file.shared.pool.try_take(self.owner, self.length)?;
        let mut packed = Vec::new();
        for (piece, target) in self.pieces.iter().zip(buffer.chunks_mut(PIECE)) {
            self.file.read_piece(*piece, &mut packed, target)?;
        }
        Ok(buffer)
    }

    /// Reads from the file without warming the buffer.
    fn read_cold(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        let (mut offset, mut target) = (offset, target);
        while !target.is_empty() {
            let piece = self.pieces[offset / PIECE];
            let from = offset % PIECE;
            let count = target.len().min(piece.bytes - from);
            let (now, later) = target.split_at_mut(count);
            plain.resize(piece.bytes, 0);
            self.file.read_piece(piece, &mut packed, &mut plain)?;
            now.copy_from_slice(&plain[from..from + count]);
            offset += count;
            target = later;
        }
        Ok(())
    }
}

impl Drop for SpilledBuffer {
    fn drop(&mut self) {
        self.file.free(&self.pieces);
    }
}

impl TensorBuffer for SpilledBuffer {
    fn kind(&self) -> Kind {
        Kind::Spilled
    }

    fn len(&self) -> usize {
        self.length
    }

    /// The address, once the bytes are in memory; 0 before.
    fn handle(&self) -> RawHandle {
        RawHandle(self.warm.get().map_or(0, |warm| warm.as_ptr().addr() as u64))
    }

    /// The bytes, brought back from disk. `None` if that fails; then [`TensorBuffer::check`] says why.
    fn bytes(&self) -> Option<&[u8]> {
        self.touch().ok()
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        self.touch().ok()?;
        self.changed = true;
        self.warm.get_mut().map(|warm| &mut **warm)
    }

    fn check(&self) -> Result<(), TensorError> {
        let failure = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(Ok(()), |message| Err(TensorError::Argument(message)))
    }

    /// Copies from memory if the bytes are there, else from the file, and leaves them where they are.
    fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), TensorError> {
        let range = offset..offset.saturating_add(target.len());
        if range.end > self.length {
            let message = format!("bytes {range:?} do not lie within the {} that there are", self.length);
            return Err(TensorError::Argument(message));
        }
        match self.warm.get() {
            Some(warm) => target.copy_from_slice(&warm[range]),
            None => self.read_cold(offset, target).map_err(|error| TensorError::Argument(error.to_string()))?,
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn io_error(folder: &Path, source: std::io::Error) -> Error {
    Error::Io { what: format!("the spill file in {}", folder.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox;

    fn file(pool: &Pool, compress: bool, limit: u64) -> (tempfile::TempDir, SpillFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = SpillFile::create(folder.path(), pool.clone(), SpillOptions { compress, limit }).unwrap();
        (folder, file)
    }

    /// Half noise, half a pattern, over three pieces.
    fn data() -> Vec<u8> {
        let mut words = vec![0u32; 3 * PIECE / 8];
        Philox::new(8).fill_words(&mut words);
        let mut bytes: Vec<u8> = bytemuck::cast_slice(&words).to_vec();
        bytes.extend((0..PIECE + 77).map(|n| (n / 1000) as u8));
        bytes
    }

    #[test]
    fn bytes_come_back_when_touched_and_go_again() {
        for compress in [false, true] {
            let (pool, data) = (Pool::new(16 << 20), data());
            let (folder, file) = file(&pool, compress, u64::MAX);
            let mut cold = Arc::new(file.spill("weights", &Storage::copy_of(&data).unwrap()).unwrap());
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
            let statistics = file.statistics();
            assert_eq!((statistics.spilled, pool.statistics().allocated), (data.len() as u64, 0));
            assert_eq!(statistics.stored < data.len() as u64 * 3 / 4, compress);
            let storage = Storage::from_arc(cold.clone());
            let mut part = vec![0; PIECE + 5000];
            storage.read(PIECE - 2500, &mut part).unwrap();
            assert!(part == data[PIECE - 2500..][..part.len()]);
            assert!(!cold.is_warm() && storage.read(data.len(), &mut [0]).is_err());
            assert!(storage.bytes().unwrap() == data && cold.is_warm());
            storage.read(PIECE - 2500, &mut part).unwrap();
            assert!(part == data[PIECE - 2500..][..part.len()]);
            assert_eq!(pool.owners().iter().find(|o| o.owner == "weights").unwrap().buffers, 1);
            assert!(Arc::get_mut(&mut cold).is_none(), "a storage holds it");
            drop(storage);
            Arc::get_mut(&mut cold).unwrap().cool().unwrap();
            assert!(!cold.is_warm() && pool.statistics().allocated == 0);
            assert!(cold.touch().unwrap() == data);
        }
    }

    #[test]
    fn what_was_written_goes_to_disk_and_room_is_used_again() {
        let (pool, data) = (Pool::new(64 << 20), data());
        let (_folder, file) = file(&pool, true, u64::MAX);
        let mut buffer = file.spill("state", &Storage::copy_of(&data).unwrap()).unwrap();
        buffer.bytes_mut().unwrap()[PIECE] ^= 1;
        buffer.cool().unwrap();
        let mut expected = data.clone();
        expected[PIECE] ^= 1;
        assert!(buffer.touch().unwrap() == expected);
        let length = file.statistics().file;
        for _ in 0..5 {
            buffer.bytes_mut().unwrap()[0] += 1;
            buffer.cool().unwrap();
        }
        assert!(file.statistics().file <= length + PIECE as u64, "{:?}", file.statistics());
        assert_eq!(file.statistics().spilled, data.len() as u64);
        drop(buffer);
        let SpillStatistics { spilled, stored, .. } = file.statistics();
        assert_eq!((spilled, stored), (0, 0));
        let state = file.lock();
        assert_eq!(state.gaps.iter().next(), Some((&0, &state.statistics.file)), "gaps are joined");
    }

    #[test]
    fn a_full_file_or_pool_is_an_error_that_can_be_mended() {
        let (pool, data) = (Pool::new(8 << 20), data());
        let (_folder, small) = file(&pool, false, PIECE as u64 + 5);
        let error = small.spill("weights", &Storage::copy_of(&data).unwrap()).err().unwrap().to_string();
        assert_eq!(error, "out of memory: the spill file needs 1.0 MiB, 5 bytes of 1.0 MiB are left");
        assert_eq!((small.statistics().stored, small.statistics().spilled), (0, 0));
        let (_folder, file) = file(&pool, true, u64::MAX);
        let cold = file.spill("weights", &Storage::copy_of(&data).unwrap()).unwrap();
        let hog = pool.try_take("hog", 7 << 20).unwrap();
        assert!(cold.bytes().is_none());
        assert!(cold.check().unwrap_err().to_string().contains("out of memory: weights needs"));
        drop(hog);
        assert!(cold.bytes().unwrap() == data && cold.check().is_ok());
        let nowhere = SpillOptions { compress: false, limit: 1 };
        assert!(SpillFile::create(Path::new("/nowhere/at all"), pool, nowhere).is_err());
    }

    #[test]
    fn many_threads_touch_it_and_it_is_read_once() {
        let (pool, data) = (Pool::new(64 << 20), data());
        let (_folder, file) = file(&pool, true, u64::MAX);
        let cold = file.spill("weights", &Storage::copy_of(&data).unwrap()).unwrap();
        let stored = file.statistics().stored;
        std::thread::scope(|scope| {
            (0..6).for_each(|_| drop(scope.spawn(|| assert!(cold.touch().unwrap() == data))));
        });
        assert_eq!(file.statistics().read, stored);
        let empty = file.spill("nothing", &Storage::copy_of(&[]).unwrap()).unwrap();
        assert!(empty.touch().unwrap().is_empty());
    }
}

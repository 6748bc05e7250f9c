//! Blocks of host memory: what a pool of the host is made of.

use std::io;

use memmap2::MmapMut;

use super::Source;

/// Alignment of pooled buffers: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// From here on blocks are mappings of their own: pages come when they are touched, and go when the block does.
const MAPPED: usize = 1 << 20;
/// From here on a block may have huge pages (2 MiB on most machines) without wasting much.
const HUGE: usize = 8 << 20;

/// Memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

/// A block of host memory, aligned to [`ALIGNMENT`]; zero when it is new.
pub struct HostBlock(Bytes);

enum Bytes {
    Lines(Vec<Line>),
    Mapped(MmapMut),
}

/// One cache line of bytes; a vector of them is aligned without unsafe code of our own.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

impl Source for Host {
    type Block = HostBlock;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn allocate(&self, bytes: usize) -> io::Result<HostBlock> {
        if bytes < MAPPED {
            let lines = bytes.div_ceil(ALIGNMENT);
            let mut block = Vec::new();
            block.try_reserve_exact(lines).map_err(|_| io::ErrorKind::OutOfMemory)?;
            block.resize(lines, Line([0; ALIGNMENT]));
            return Ok(HostBlock(Bytes::Lines(block)));
        }
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // Advice only: without huge pages the block works as well.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(HostBlock(Bytes::Mapped(map)))
    }
}

impl HostBlock {
    /// All bytes of the block.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Bytes::Lines(lines) => bytemuck::cast_slice(lines),
            Bytes::Mapped(map) => map,
        }
    }

    /// All bytes of the block, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Bytes::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Bytes::Mapped(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_size_are_aligned_zero_and_writable() {
        for bytes in [0, 64, 4096, MAPPED - 64, MAPPED, HUGE, HUGE + (2 << 20)] {
            let mut block = Host.allocate(bytes).unwrap();
            assert_eq!((block.as_slice().len(), block.as_slice().as_ptr() as usize % ALIGNMENT), (bytes, 0));
            assert!(block.as_slice().iter().all(|byte| *byte == 0));
            block.as_mut_slice().fill(1);
        }
    }

    #[test]
    fn what_the_system_has_not_got_is_an_error() {
        assert!(Host.allocate(1 << 62).is_err());
        assert!(Host.allocate(usize::MAX).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_large_block_takes_no_memory_before_it_is_touched() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let before = resident();
        let block = Host.allocate(1 << 30).unwrap();
        assert!(resident() < before + (256 << 20));
        assert_eq!(block.as_slice().len(), 1 << 30);
    }
}

//! Codes of 1 to 8 bits as a little-endian bit string, eight codes at a time within one 64-bit word.

/// Packs eight codes (one per byte, each below `2^BITS`) into the low `8 * BITS` bits.
#[inline(always)]
pub(crate) fn pack8<const BITS: u32>(codes: u64) -> u64 {
    let w = codes & 0x00ff_00ff_00ff_00ff | (codes & 0xff00_ff00_ff00_ff00) >> (8 - BITS);
    let w = w & 0x0000_ffff_0000_ffff | (w & 0xffff_0000_ffff_0000) >> (16 - 2 * BITS);
    w & 0xffff_ffff | w >> 32 << (4 * BITS)
}

/// The inverse of [`pack8`]; bits above `8 * BITS` are ignored.
#[inline(always)]
pub(crate) fn spread8<const BITS: u32>(packed: u64) -> u64 {
    let four = (1u64 << (4 * BITS)) - 1;
    let two = ((1u64 << (2 * BITS)) - 1) * 0x0000_0001_0000_0001;
    let one = ((1u64 << BITS) - 1) * 0x0001_0001_0001_0001;
    let w = packed & four | (packed >> (4 * BITS) & four) << 32;
    let w = w & two | (w << (16 - 2 * BITS)) & two << 16;
    w & one | (w << (8 - BITS)) & one << 8
}

/// Packs 32 codes into `4 * BITS` bytes.
#[inline(always)]
pub(crate) fn pack32<const BITS: u32>(codes: &[u8; 32], packed: &mut [u8]) {
    let mut words = [0; 4];
    for (word, eight) in words.iter_mut().zip(codes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*eight);
    }
    // Not `map`: its loop is a function of its own, compiled without the instruction set of the caller.
    for word in &mut words {
        *word = pack8::<BITS>(*word);
    }
    for (word, out) in words.iter().zip(packed.chunks_exact_mut(BITS as usize)) {
        out.copy_from_slice(&word.to_le_bytes()[..BITS as usize]);
    }
}

/// Unpacks 32 codes from `4 * BITS` bytes.
#[inline(always)]
pub(crate) fn unpack32<const BITS: u32>(packed: &[u8]) -> [u8; 32] {
    // Widths that divide a byte spread by shifts of 16- and 32-bit lanes, which become vectors.
    let mut codes = [0; 32];
    if let (4, Some(bytes)) = (BITS, packed.first_chunk::<16>()) {
        for (two, byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            let wide = u16::from(*byte);
            *two = ((wide | wide << 4) & 0x0f0f).to_le_bytes();
        }
        return codes;
    }
    if let (2, Some(bytes)) = (BITS, packed.first_chunk::<8>()) {
        for (four, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
            let wide = u32::from(*byte);
            let wide = (wide | wide << 12) & 0x000f_000f;
            *four = ((wide | wide << 6) & 0x0303_0303).to_le_bytes();
        }
        return codes;
    }
    if let (8, Some(bytes)) = (BITS, packed.first_chunk::<32>()) {
        return *bytes;
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(packed.chunks_exact(BITS as usize)) {
        let mut eight = [0; 8];
        eight[..BITS as usize].copy_from_slice(bytes);
        *word = u64::from_le_bytes(eight);
    }
    for word in &mut words {
        *word = spread8::<BITS>(*word);
    }
    for (eight, word) in codes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *eight = word.to_le_bytes();
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<const BITS: u32>() {
        let codes: [u8; 32] = std::array::from_fn(|i| (i * 37 + 11) as u8 & ((1u32 << BITS) - 1) as u8);
        let mut packed = vec![0; 4 * BITS as usize];
        pack32::<BITS>(&codes, &mut packed);
        for (i, code) in codes.iter().enumerate() {
            let bit = |b: usize| packed[b / 8] >> (b % 8) & 1;
            let read = (0..BITS as usize).fold(0, |n, b| n | bit(i * BITS as usize + b) << b);
            assert_eq!(read, *code, "{BITS} bits, code {i}");
        }
        assert_eq!(unpack32::<BITS>(&packed), codes);
    }

    #[test]
    fn codes_are_a_bit_string() {
        there_and_back::<1>();
        there_and_back::<2>();
        there_and_back::<3>();
        there_and_back::<4>();
        there_and_back::<5>();
        there_and_back::<6>();
        there_and_back::<8>();
    }
}

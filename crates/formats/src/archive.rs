//! Zips of stored members, laid out before their values are there: NumPy's and PyTorch's.
//!
//! A member's checksum stands before its values and in the directory; both places are filled in at the end, from the
//! [`Checksum`]s of the layout. Records follow PKWARE's APPNOTE, sections 4.3 and 4.5.3.

use crate::{Checksum, Error, LayoutPart};

/// One member of a zip.
pub struct Member {
    pub name: String,
    /// The bytes that it begins with.
    pub head: Vec<u8>,
    /// All its bytes.
    pub length: u64,
}

/// What an extra field that only moves the values is called; PyTorch's is the same.
const PADDING: u16 = u16::from_le_bytes(*b"FB");
const WIDE: u16 = 1;
/// The name is UTF-8.
const UTF8: u16 = 1 << 11;
/// The first of January 1980, where the dates of zips begin: the same model gives the same bytes on any day.
const DATE: u32 = 0x21 << 16;
/// From here on a number stands in a 64-bit field.
const FULL: u64 = u32::MAX as u64;

/// Lays out a zip called `name`. The bytes of each member begin at a multiple of `alignment`. Gives where.
pub fn lay(name: String, members: Vec<Member>, alignment: u64) -> Result<(LayoutPart, Vec<u64>), Error> {
    let too_large = || Error::Layout(format!("the zip {name:?} would be too large"));
    let (mut at, mut offsets) = (0u64, Vec::with_capacity(members.len()));
    let mut part = LayoutPart::new(name.clone(), Vec::new(), 0);
    let mut directory = Vec::new();
    for member in &members {
        if member.name.is_empty() || member.name.len() > 60_000 || member.name.contains('\0') {
            return Err(Error::Layout(format!("a member of a zip cannot be called {:?}", member.name)));
        }
        let header = local(member, at, alignment);
        let data = at.checked_add(header.len() as u64).ok_or_else(too_large)?;
        let end = data.checked_add(member.length).ok_or_else(too_large)?;
        // Where the checksum is in the record of the directory is known when the directory has its place.
        part.checksums.push(Checksum { start: data, length: member.length, places: [at + 14, directory.len() as u64] });
        central(&mut directory, member, at);
        part.constants.push((at, [header, member.head.clone()].concat()));
        offsets.push(data);
        at = end;
    }
    for checksum in &mut part.checksums {
        checksum.places[1] =
            checksum.places[1].checked_add(at).and_then(|p| p.checked_add(16)).ok_or_else(too_large)?;
    }
    let length = directory.len() as u64;
    end_records(&mut directory, members.len() as u64, at, length);
    part.length = at.checked_add(directory.len() as u64).ok_or_else(too_large)?;
    part.constants.push((at, directory));
    // The first record is what tells the file from an unfinished one.
    part.head = part.constants.remove(0).1;
    Ok((part, offsets))
}

/// A number in 32 bits, all ones where it stands in the 64-bit field.
fn small(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn flags(name: &str) -> [u8; 2] {
    if name.is_ascii() { [0; 2] } else { UTF8.to_le_bytes() }
}

/// The 64-bit field with those of `numbers` that do not fit; empty where all do.
fn wide(numbers: &[u64]) -> Vec<u8> {
    let large: Vec<u8> = numbers.iter().filter(|n| **n >= FULL).flat_map(|n| n.to_le_bytes()).collect();
    if large.is_empty() {
        return large;
    }
    [&WIDE.to_le_bytes()[..], &(large.len() as u16).to_le_bytes(), &large].concat()
}

fn version(extra: &[u8]) -> [u8; 2] {
    if extra.is_empty() { 20u16.to_le_bytes() } else { 45u16.to_le_bytes() }
}

/// The record before a member's bytes, padded so that they begin at a multiple of `alignment`.
fn local(member: &Member, at: u64, alignment: u64) -> Vec<u8> {
    let mut extra = wide(&[member.length, member.length]);
    let needed = version(&extra);
    let data = at + 30 + (member.name.len() + extra.len()) as u64;
    let gap = data.next_multiple_of(alignment) - data;
    if gap > 0 {
        // A field has four bytes before its own.
        let gap = if gap < 4 { gap + alignment.max(4) } else { gap };
        extra.extend(PADDING.to_le_bytes());
        extra.extend((gap as u16 - 4).to_le_bytes());
        extra.resize(extra.len() + gap as usize - 4, 0);
    }
    let size = small(member.length);
    let mut record = b"PK\x03\x04".to_vec();
    record.extend(needed);
    record.extend(flags(&member.name));
    record.extend([0; 2]);
    record.extend(DATE.to_le_bytes());
    record.extend([0; 4]);
    record.extend([size, size].concat());
    record.extend((member.name.len() as u16).to_le_bytes());
    record.extend((extra.len() as u16).to_le_bytes());
    record.extend(member.name.bytes());
    record.extend(extra);
    record
}

/// Appends a member's record of the directory; the checksum is 16 bytes from its beginning.
fn central(out: &mut Vec<u8>, member: &Member, at: u64) {
    let extra = wide(&[member.length, member.length, at]);
    let size = small(member.length);
    out.extend(b"PK\x01\x02");
    out.extend(version(&extra));
    out.extend(version(&extra));
    out.extend(flags(&member.name));
    out.extend([0; 2]);
    out.extend(DATE.to_le_bytes());
    out.extend([0; 4]);
    out.extend([size, size].concat());
    out.extend((member.name.len() as u16).to_le_bytes());
    out.extend((extra.len() as u16).to_le_bytes());
    // No comment, the first disk, no attributes.
    out.extend([0; 10]);
    out.extend(small(at));
    out.extend(member.name.bytes());
    out.extend(extra);
}

/// Appends what stands behind the directory of `length` bytes at `at`.
fn end_records(out: &mut Vec<u8>, members: u64, at: u64, length: u64) {
    if members >= 0xffff || at >= FULL || length >= FULL {
        let record = at + length;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0]);
        out.extend([0; 8]);
        [members, members, length, at].iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend(b"PK\x06\x07");
        out.extend([0; 4]);
        out.extend(record.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    let count = (members.min(0xffff) as u16).to_le_bytes();
    out.extend(b"PK\x05\x06");
    out.extend([0; 4]);
    out.extend([count, count].concat());
    out.extend(small(length));
    out.extend(small(at));
    out.extend([0; 2]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zip::{Bytes, Rules, members};
    use windlass_tensor::Limits;

    const RULES: Rules = Rules { trailing: false, compressed: "" };

    /// The zip without its values, which may be many: only records are kept.
    struct Sparse(LayoutPart);

    impl Bytes for Sparse {
        fn length(&self) -> u64 {
            self.0.length
        }

        fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, crate::Problem> {
            let mut bytes = vec![0; length];
            let head = (0, self.0.head.clone());
            for (start, known) in self.0.constants.iter().chain([&head]) {
                for (i, byte) in bytes.iter_mut().enumerate() {
                    let at = (offset + i as u64).checked_sub(*start).and_then(|at| known.get(at as usize));
                    *byte = at.copied().unwrap_or(*byte);
                }
            }
            Ok(bytes)
        }
    }

    fn member(name: &str, length: u64) -> Member {
        Member { name: name.into(), head: b"head".to_vec(), length }
    }

    #[test]
    fn a_zip_of_any_size_is_read_back() {
        for sizes in [[4, 100, 7], [5 << 30, 8, 4], [4, u64::from(u32::MAX), 4]] {
            let all = sizes.iter().zip(["a", "größer", "c/d"]).map(|(length, name)| member(name, *length));
            let (part, offsets) = lay("x".into(), all.collect(), 64).unwrap();
            assert!(offsets.iter().all(|offset| offset % 64 == 0));
            let found = members(&Sparse(part), &Limits::default(), &RULES).unwrap();
            let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.offset, m.length)).collect();
            let names = ["a", "größer", "c/d"];
            let expected: Vec<_> = (0..3).map(|i| (names[i], offsets[i], sizes[i])).collect();
            assert_eq!(found, expected);
        }
        assert!(lay("x".into(), vec![member("a", u64::MAX)], 64).is_err());
        assert!(lay("x".into(), vec![member("", 4)], 64).is_err());
    }
}

//! Zips of arrays and of PyTorch: stored members that lie behind each other, told twice and compared.

use std::fs::File;

use windlass_tensor::Limits;

use crate::Problem;

/// What a format's own writer does beyond the plainest zip.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether sizes and checksum of a member may stand behind its data.
    pub trailing: bool,
    /// What to do about a compressed member.
    pub compressed: &'static str,
}

/// Bytes that are read by place.
pub trait Bytes {
    /// How many there are.
    fn length(&self) -> u64;

    /// `length` bytes from `offset`.
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Problem>;
}

/// One checked member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Where its data begin in the file.
    pub offset: u64,
    pub length: u64,
    pub crc: u32,
    /// Whether its sizes and checksum stand behind its data.
    trailing: bool,
}

const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

/// The name is UTF-8.
const UTF8: u16 = 1 << 11;
/// Sizes and checksum stand behind the data.
const TRAILING: u16 = 1 << 3;

impl Bytes for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Problem> {
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| self.get(start..)?.get(..length));
        found.map(<[u8]>::to_vec).ok_or_else(|| beyond(offset, length))
    }
}

impl Bytes for File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Problem> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.length()) {
            return Err(beyond(offset, length));
        }
        let mut buffer = vec![0; length];
        crate::files::read_exact_at(self, &mut buffer, offset)
            .map_err(|e| Problem::new("io", e.to_string()).offset(offset))?;
        Ok(buffer)
    }
}

fn beyond(offset: u64, length: usize) -> Problem {
    let message = format!("{length} bytes were expected here, the file ends before: it is truncated");
    Problem::new("truncated", message).offset(offset)
}

/// Reads the directory and every member's own header, and checks that together they cover the file.
pub fn members(bytes: &dyn Bytes, limits: &Limits, rules: &Rules) -> Result<Vec<Member>, Problem> {
    let directory = directory(bytes, limits)?;
    let text = bytes.read(directory.offset, directory.length)?;
    let mut at = Cursor { bytes: &text, at: 0, base: directory.offset };
    let mut found = Vec::new();
    for _ in 0..directory.entries {
        found.push(central(&mut at, rules)?);
    }
    if at.at != text.len() {
        let message = format!("the zip directory says {} members, and goes on after them", directory.entries);
        return Err(Problem::new("directory-count", message).offset(directory.offset + at.at as u64));
    }
    found.sort_by_key(|(header, _)| *header);
    let mut end = 0;
    let mut members = Vec::with_capacity(found.len());
    for (header, mut member) in found {
        if header != end {
            let (code, what) = if header < end { ("overlap", "overlaps") } else { ("hole", "leaves a hole after") };
            let message = format!("begins at {header} and {what} what is before it, which ends at {end}");
            return Err(Problem::new(code, message).tensor(&member.name).offset(header));
        }
        let place = |problem: Problem| problem.tensor(&member.name);
        let (offset, wide) = local(bytes, header, &member).map_err(place)?;
        member.offset = offset;
        let past = || Problem::new("truncated", "reaches into the zip directory");
        let inside = |end: &u64| *end <= directory.offset;
        end = offset.checked_add(member.length).filter(inside).ok_or_else(|| past().tensor(&member.name))?;
        if member.trailing {
            end = descriptor(bytes, end, wide, &member).map_err(|p| p.tensor(&member.name))?;
        }
        members.push(member);
    }
    if end != directory.offset {
        let message = format!("bytes {end} to {} belong to no member", directory.offset);
        return Err(Problem::new("hole", message).offset(end));
    }
    Ok(members)
}

struct Directory {
    offset: u64,
    length: usize,
    entries: u64,
}

/// Finds the directory from the end of the file, which must be the end record itself (no comment behind it).
fn directory(bytes: &dyn Bytes, limits: &Limits) -> Result<Directory, Problem> {
    let place = bytes.length().checked_sub(22).ok_or_else(|| beyond(0, 22))?;
    let record = bytes.read(place, 22)?;
    let mut at = Cursor { bytes: &record, at: 0, base: place };
    if at.u32()? != END {
        let message = "the file does not end with a zip directory: it is truncated, or something was added";
        return Err(Problem::new("no-directory", message).offset(place).help("download it again"));
    }
    let (disk, first_disk) = (at.u16()?, at.u16()?);
    let (here, entries) = (u64::from(at.u16()?), u64::from(at.u16()?));
    let (length, offset) = (u64::from(at.u32()?), u64::from(at.u32()?));
    let comment = at.u16()?;
    if disk != 0 || first_disk != 0 || here != entries || comment != 0 {
        let message = "the zip is split over several files, or its end record is damaged";
        return Err(Problem::new("bad-directory", message).offset(place));
    }
    let mut found = (entries, length, offset, place);
    // PyTorch writes the 64-bit record always, also where the small one says all.
    let marked = entries == 0xffff || length == 0xffff_ffff || offset == 0xffff_ffff;
    if marked || (offset.checked_add(length) != Some(place) && has_locator(bytes, place)?) {
        found = directory64(bytes, place, (entries, length, offset))?;
    }
    let (entries, length, offset, end) = found;
    if offset.checked_add(length) != Some(end) {
        let message = format!("the zip directory says {length} bytes at {offset}, it should end at {end}");
        return Err(Problem::new("bad-directory", message).offset(place));
    }
    if length > limits.header_bytes || entries > limits.tensors || entries.saturating_mul(46) > length {
        let message = format!("the zip directory says {entries} members in {length} bytes");
        return Err(Problem::new("directory-count", message).offset(place));
    }
    let length = usize::try_from(length).map_err(|_| beyond(offset, usize::MAX))?;
    Ok(Directory { offset, length, entries })
}

/// Whether the locator of a 64-bit end record stands before the end record at `end`.
fn has_locator(bytes: &dyn Bytes, end: u64) -> Result<bool, Problem> {
    let Some(place) = end.checked_sub(20) else { return Ok(false) };
    Ok(bytes.read(place, 4)? == LOCATOR64.to_le_bytes())
}

/// Entries, length, offset and end of the directory by the 64-bit end record; small values must agree with it.
fn directory64(
    bytes: &dyn Bytes,
    end: u64,
    (entries, length, offset): (u64, u64, u64),
) -> Result<(u64, u64, u64, u64), Problem> {
    let lies = |message: &str| Problem::new("bad-zip64", message.to_string()).offset(end);
    let missing = || lies("the end record asks for a 64-bit one, which is not there");
    let place = end.checked_sub(20).ok_or_else(missing)?;
    let locator = bytes.read(place, 20)?;
    let mut at = Cursor { bytes: &locator, at: 0, base: place };
    if at.u32()? != LOCATOR64 || at.u32()? != 0 {
        return Err(missing());
    }
    let record = at.u64()?;
    if at.u32()? > 1 || record.checked_add(56) != Some(place) {
        return Err(lies("the 64-bit end record is not where its locator says"));
    }
    let text = bytes.read(record, 56)?;
    let mut at = Cursor { bytes: &text, at: 0, base: record };
    if at.u32()? != END64 || at.u64()? != 44 {
        return Err(missing());
    }
    at.u32()?;
    if at.u32()? != 0 || at.u32()? != 0 {
        return Err(lies("the zip is split over several files"));
    }
    let (here, all, long, from) = (at.u64()?, at.u64()?, at.u64()?, at.u64()?);
    let agree = |small: u64, mark: u64, large: u64| small == mark || small == large;
    let same = agree(entries, 0xffff, all) && agree(length, 0xffff_ffff, long) && agree(offset, 0xffff_ffff, from);
    if here != all || !same {
        return Err(lies("the two end records of the zip say different things"));
    }
    Ok((all, long, from, record))
}

/// One entry of the directory: where its local header is, and the member but for the place of its data.
fn central(at: &mut Cursor<'_>, rules: &Rules) -> Result<(u64, Member), Problem> {
    let start = at.base + at.at as u64;
    let bad = |code, message: String| Problem::new(code, message).offset(start);
    if at.u32()? != CENTRAL {
        return Err(bad("directory-count", "the zip directory has fewer members than it says".into()));
    }
    at.u32()?;
    let (flags, method) = (at.u16()?, at.u16()?);
    at.u32()?;
    let crc = at.u32()?;
    let (packed, length) = (at.u32()?, at.u32()?);
    let (name, extra, comment) = (at.u16()?, at.u16()?, at.u16()?);
    let disk = at.u16()?;
    at.u16()?;
    at.u32()?;
    let header = at.u32()?;
    let name = String::from_utf8(at.take(name.into())?.to_vec())
        .map_err(|_| bad("bad-name", "the name of a member is not UTF-8".into()))?;
    let extra = at.take(extra.into())?;
    at.take(comment.into())?;
    let fail = |code, message: &str| Err(bad(code, message.to_string()).tensor(&name));
    if method != 0 {
        let problem = bad("compressed", "is compressed: its values cannot be read in place".into()).tensor(&name);
        return Err(problem.help(rules.compressed));
    }
    let allowed = if rules.trailing { UTF8 | TRAILING } else { UTF8 };
    if flags & !allowed != 0 || disk != 0 {
        return fail("bad-member", "is encrypted, streamed or on another disk");
    }
    let (length, packed, header) = widen(extra, &[length, packed, header], true)
        .and_then(|wide| <[u64; 3]>::try_from(wide).ok())
        .map(|[a, b, c]| (a, b, c))
        .ok_or_else(|| bad("bad-zip64", "its 64-bit sizes are missing".into()).tensor(&name))?;
    if packed != length {
        return fail("wrong-size", "is stored, but its two sizes differ");
    }
    Ok((header, Member { name, offset: 0, length, crc, trailing: flags & TRAILING != 0 }))
}

/// Checks a member's own header against the directory; gives the place of its data, and whether it has 64-bit sizes.
fn local(bytes: &dyn Bytes, header: u64, member: &Member) -> Result<(u64, bool), Problem> {
    let differs = |what: &str| {
        let message = format!("its own header and the zip directory have different {what}");
        Problem::new("local-header", message).offset(header)
    };
    let fixed = bytes.read(header, 30)?;
    let mut at = Cursor { bytes: &fixed, at: 0, base: header };
    if at.u32()? != LOCAL {
        return Err(Problem::new("local-header", "there is no member where the zip directory says").offset(header));
    }
    at.u16()?;
    let (flags, method) = (at.u16()?, at.u16()?);
    at.u32()?;
    let crc = at.u32()?;
    let (packed, length) = (at.u32()?, at.u32()?);
    let (name, extra) = (usize::from(at.u16()?), usize::from(at.u16()?));
    // `header` is inside the file: its 30 bytes were read.
    let rest = bytes.read(header + 30, name + extra)?;
    if rest.get(..name) != Some(member.name.as_bytes()) {
        return Err(differs("names"));
    }
    let later = member.trailing && (crc, length, packed) == (0, 0, 0);
    let flag = if member.trailing { TRAILING } else { 0 };
    if flags & !UTF8 != flag || method != 0 || (crc != member.crc && !later) {
        return Err(differs("flags, methods or checksums"));
    }
    let fields = rest.get(name..).unwrap_or_default();
    let sizes = widen(fields, &[length, packed], false);
    if !later && sizes != Some(vec![member.length, member.length]) {
        return Err(differs("sizes"));
    }
    let wide = wide_field(fields).ok_or_else(|| differs("sizes"))?.is_some();
    Ok((header + 30 + (name + extra) as u64, wide))
}

/// Checks what stands behind a member's data at `at` against the directory; gives where it ends.
fn descriptor(bytes: &dyn Bytes, at: u64, wide: bool, member: &Member) -> Result<u64, Problem> {
    let text = bytes.read(at, if wide { 24 } else { 16 })?;
    let mut cursor = Cursor { bytes: &text, at: 0, base: at };
    let found = (cursor.u32()?, cursor.u32()?);
    let mut size = || if wide { cursor.u64() } else { cursor.u32().map(u64::from) };
    let sizes = (size()?, size()?);
    if found != (DESCRIPTOR, member.crc) || sizes != (member.length, member.length) {
        let message = "what stands behind its data and the zip directory have different sizes or checksums";
        return Err(Problem::new("local-header", message).offset(at));
    }
    Ok(at + text.len() as u64)
}

/// Replaces the values that are all ones by those of the 64-bit extra field, in order. An unpacked and a packed size
/// always stand together in a local header.
fn widen(extra: &[u8], small: &[u32], central: bool) -> Option<Vec<u64>> {
    let mut wide = wide_field(extra)?;
    let both = !central && small.contains(&u32::MAX);
    let value = |s: &u32| match *s {
        u32::MAX => wide.as_mut()?.u64().ok(),
        _ if both => None,
        small => Some(u64::from(small)),
    };
    small.iter().map(value).collect()
}

/// The 64-bit extra field, where there is one; `None` where there are two, or the fields are cut off.
fn wide_field(extra: &[u8]) -> Option<Option<Cursor<'_>>> {
    let mut at = Cursor { bytes: extra, at: 0, base: 0 };
    let mut wide = None;
    while at.at < extra.len() {
        let (kind, length) = (at.u16().ok()?, at.u16().ok()?);
        let field = at.take(length.into()).ok()?;
        if kind == 1 && wide.replace(Cursor { bytes: field, at: 0, base: 0 }).is_some() {
            return None;
        }
    }
    Some(wide)
}

/// Reads all members and compares their checksums.
pub fn verify(file: &File, members: &[Member]) -> Result<Vec<Problem>, Problem> {
    let mut problems = Vec::new();
    for member in members {
        let found = checksum(file, member)?;
        if found != member.crc {
            let message = format!("its checksum is {found:08x}, the archive says {:08x}", member.crc);
            problems.push(Problem::new("checksum", message).tensor(&member.name).offset(member.offset));
        }
    }
    Ok(problems)
}

fn checksum(file: &File, member: &Member) -> Result<u32, Problem> {
    let (mut crc, mut done) = (0, 0);
    while done < member.length {
        let piece = (member.length - done).min(1 << 20);
        crc = crc32(crc, &file.read(member.offset + done, piece as usize)?);
        done += piece;
    }
    Ok(crc)
}

/// CRC-32 as zip computes it, continued from `crc` (0 at the beginning). Eight bytes at a time by as many tables.
pub fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let look = |table: usize, word: u32, byte: u32| TABLES[table][(word >> (8 * byte) & 255) as usize];
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(!crc, |crc, word| {
        let [a, b, c, d, e, f, g, h] = *word;
        let (low, high) = (crc ^ u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let first = look(7, low, 0) ^ look(6, low, 1) ^ look(5, low, 2) ^ look(4, low, 3);
        first ^ look(3, high, 0) ^ look(2, high, 1) ^ look(1, high, 2) ^ look(0, high, 3)
    });
    !rest.iter().fold(crc, |crc, byte| look(0, crc ^ u32::from(*byte), 0) ^ (crc >> 8))
}

/// Table `k` has the effect of a byte with `k` bytes behind it.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut c, mut bit) = (i as u32, 0);
        while bit < 8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        tables[0][i] = c;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut i = 0;
        while i < 256 {
            let before: u32 = tables[k - 1][i];
            tables[k][i] = tables[0][(before & 255) as usize] ^ (before >> 8);
            i += 1;
        }
        k += 1;
    }
    tables
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Place of the first byte in the file.
    base: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        let found = found.ok_or_else(|| {
            Problem::new("directory-count", "a zip record ends early").offset(self.base + self.at as u64)
        })?;
        self.at += length;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(super::crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc32(super::crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
        // As Python's zlib.crc32 says.
        assert_eq!(super::crc32(0, &(0..=255).collect::<Vec<u8>>()), 0x2905_8c73);
    }
}

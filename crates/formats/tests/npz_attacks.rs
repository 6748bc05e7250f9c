//! Hostile NumPy arrays and archives: each is refused with a message that says why.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/zip.rs"]
mod zip;

use hostile::{Attack, file};
use windlass_tensor::Limits;
use zip::Archive;

/// An array with this header text and this many bytes of values.
fn npy(version: u8, text: &str, data: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((text.len() as u16).to_le_bytes()),
        _ => bytes.extend((text.len() as u32).to_le_bytes()),
    }
    bytes.extend(text.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A vector of two floats.
fn vector() -> Vec<u8> {
    npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8)
}

fn two() -> Archive {
    Archive::new(&[("a.npy", vector()), ("b.npy", vector())])
}

fn attacks() -> Vec<Attack> {
    let mut all = directories();
    all.extend(members());
    all.extend(arrays());
    all
}

fn directories() -> Vec<Attack> {
    let add = |name, idea, stopped_by, archive: Archive| file(name, idea, stopped_by, archive.bytes);
    let cut = |bytes: usize| {
        let mut whole = two();
        whole.bytes.truncate(whole.bytes.len() - bytes);
        whole
    };
    let mut behind = two();
    behind.bytes.extend(b"#!/bin/sh\n");
    let mut before = two();
    before.bytes.splice(0..0, *b"MZ");
    let (start, length, end) = (two().centrals[0] as u64, (two().end - two().centrals[0]) as u64, two().end as u64);
    let marked = |archive: Archive| archive.last(16, &[0xff; 4]);
    let zip64 = "the 64-bit end record is not where its locator says";
    vec![
        add("no-end.npz", "the end is missing", "does not end with a zip directory", cut(22)),
        add("behind.npz", "a second format behind the archive", "does not end with a zip directory", behind),
        add("before.npz", "a second format before the archive", "it should end at", before),
        add("count-less.npz", "a member that the end record hides", "goes on after them", two().last(8, &[1, 0, 1, 0])),
        add(
            "count-more.npz",
            "a member that is not there",
            "the zip directory says 3 members",
            two().last(8, &[3, 0, 3, 0]),
        ),
        add(
            "count-huge.npz",
            "65534 members in 102 bytes",
            "65534 members in",
            two().last(8, &[0xfe, 0xff, 0xfe, 0xff]),
        ),
        add(
            "count-disks.npz",
            "different counts for this disk and all",
            "split over several",
            two().last(8, &[1, 0, 2, 0]),
        ),
        add("disk.npz", "a part of a larger archive", "split over several files", two().last(4, &[1, 0])),
        add("comment.npz", "a comment longer than the file", "split over several files", two().last(20, &[255, 0])),
        add("directory-length.npz", "a directory shorter than told", "it should end at", two().last(12, &[1, 0, 0, 0])),
        add(
            "directory-offset.npz",
            "a directory past the end",
            "it should end at",
            two().last(16, &[0xfe, 0xff, 0xff, 0x7f]),
        ),
        add("zip64-missing.npz", "a 64-bit record that is not there", "which is not there", marked(two())),
        add("zip64-elsewhere.npz", "a locator that points to the data", zip64, marked(two().wide(2, length, start, 0))),
        add("zip64-past-end.npz", "a locator past the end", zip64, marked(two().wide(2, length, start, u64::MAX))),
        add(
            "zip64-count.npz",
            "two end records, two counts",
            "say different things",
            marked(two().wide(3, length, start, end)),
        ),
        add("zip64-count-max.npz", "2^64-1 members", "18446744073709551615 members in", {
            marked(two().wide(u64::MAX, length, start, end)).last(8, &[0xff; 4])
        }),
        add(
            "zip64-offset.npz",
            "a 64-bit offset that wraps",
            "it should end at",
            marked(two().wide(2, length, u64::MAX - length + 1, end)),
        ),
    ]
}

fn members() -> Vec<Attack> {
    let add = |name, idea, stopped_by, archive: Archive| file(name, idea, stopped_by, archive.bytes);
    let size = vector().len() as u32;
    let packed = npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (268435456,), }\n", 0);
    let member = |name: &str| Archive::new(&[(name, vector())]);
    vec![
        add("compressed.npz", "a bomb: 1 GiB announced in 70 bytes", "is compressed", {
            Archive::new(&[("a.npy", packed)]).central(0, 10, &[8, 0]).central(0, 24, &(1u32 << 30).to_le_bytes())
        }),
        add(
            "size-lie.npz",
            "stored, with two sizes",
            "its two sizes differ",
            two().central(0, 24, &(1u32 << 30).to_le_bytes()),
        ),
        add("size-huge.npz", "a member longer than the file", "reaches into the zip directory", {
            let huge = [(1u32 << 30).to_le_bytes(); 2].concat();
            Archive::new(&[("a.npy", vector())]).central(0, 20, &huge).local(0, 18, &huge)
        }),
        add(
            "overlap.npz",
            "two members on the same bytes: much out of little",
            "overlaps",
            two().central(1, 42, &[0; 4]),
        ),
        add("overlap-half.npz", "a member inside another", "overlaps", two().central(1, 42, &[40, 0, 0, 0])),
        add("offset-past-end.npz", "a member past the end", "leaves a hole", two().central(1, 42, &[0, 0, 0, 0x7f])),
        add("hole.npz", "bytes that belong to no member", "leaves a hole", two().central(0, 42, &[1, 0, 0, 0])),
        add("size-short.npz", "a member shorter than its place", "leaves a hole", {
            let short = [(size - 1).to_le_bytes(); 2].concat();
            two().central(0, 20, &short).local(0, 18, &short)
        }),
        add("local-name.npz", "another name in the member's own header", "different names", two().local(0, 30, b"c")),
        add(
            "local-size.npz",
            "another size in the member's own header",
            "different sizes",
            two().local(0, 22, &[1, 0, 0, 0]),
        ),
        add(
            "local-crc.npz",
            "another checksum in the member's own header",
            "checksums",
            two().local(0, 14, &[1, 2, 3, 4]),
        ),
        add("local-method.npz", "compressed in its own header only", "methods", two().local(0, 8, &[8, 0])),
        add("local-missing.npz", "no header where the directory says", "there is no member", two().local(0, 0, b"XX")),
        add("local-zip64.npz", "a 64-bit size that is missing", "different sizes", two().local(0, 18, &[0xff; 8])),
        add(
            "central-zip64.npz",
            "the same in the directory",
            "64-bit sizes are missing",
            two().central(0, 20, &[0xff; 8]),
        ),
        add("encrypted.npz", "an encrypted member", "is encrypted", two().central(0, 8, &[1, 0])),
        add("streamed.npz", "sizes only behind the data", "streamed", two().central(0, 8, &[8, 0])),
        add("name-length.npz", "a name longer than the directory", "ends early", two().central(1, 28, &[0xff, 0xff])),
        add("name-not-utf8.npz", "a name that is not text", "is not UTF-8", two().central(0, 46, &[0xff])),
        add("name-other.npz", "a member that is no array", "ends in .npy", member("run.sh")),
        add("name-empty.npz", "an array without a name", "a name has 1 to", member(".npy")),
        add("name-nul.npz", "a name that ends early in C", "no zero byte", member("a\0b.npy")),
        add("name-twice.npz", "two arrays of one name", "two tensors of this name", {
            Archive::new(&[("a.npy", vector()), ("a.npy", vector())])
        }),
        add("not-an-array.npz", "a member that only has the name of an array", "is not a NumPy array", {
            Archive::new(&[("a.npy", b"pickle".to_vec())])
        }),
        add("empty-array.npz", "a member of no bytes", "is not a NumPy array", Archive::new(&[("a.npy", Vec::new())])),
    ]
}

fn arrays() -> Vec<Attack> {
    let lone = |name, idea, stopped_by, text: &str, data| file(name, idea, stopped_by, npy(1, text, data));
    let header =
        |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let floats = |shape: &str| header("'<f4'", shape);
    let typed = |descr: &str| header(descr, "(2,)");
    vec![
        file("version-4.npy", "a version yet to come", "version 4.0", npy(4, &floats("(2,)"), 8)),
        file("header-length.npy", "4 GiB of header", "the limit is 65535", {
            let mut bytes = npy(2, &floats("(2,)"), 8);
            bytes[8..12].copy_from_slice(&[0xff; 4]);
            bytes
        }),
        file(
            "header-past-end.npy",
            "a header longer than the array",
            "ends inside its header",
            npy(1, &floats("(2,)"), 8)[..40].to_vec(),
        ),
        lone("literal-code.npy", "a program instead of a literal", "expected a string", "{__import__('os'): 1}", 8),
        lone("literal-list.npy", "a list instead of a dictionary", "expected '{'", "['descr']", 8),
        lone("literal-deep.npy", "a shape nested 5000 times", "expected a dimension", &floats(&"(".repeat(5000)), 8),
        lone("literal-open.npy", "a text that does not end", "does not end", "{'descr", 8),
        lone("literal-behind.npy", "more behind the literal", "something follows", &format!("{} 1", floats("(2,)")), 8),
        lone("key-twice.npy", "two shapes: which one holds?", "comes twice", &floats("(2,), 'shape': (4,)"), 8),
        lone("key-unknown.npy", "a key nobody knows", "unknown key", &floats("(2,), 'x': (4,)"), 8),
        lone("key-missing.npy", "no shape", "lacks", "{'descr': '<f4', 'fortran_order': False}", 8),
        lone(
            "shape-overflow.npy",
            "a product of 2^64: it wraps to 0",
            "is too large",
            &floats("(4294967296, 4294967296)"),
            0,
        ),
        lone("shape-huge.npy", "a dimension above 2^64", "expected a dimension", &floats("(99999999999999999999,)"), 0),
        lone("shape-negative.npy", "a negative dimension", "expected a dimension", &floats("(-2,)"), 8),
        lone("shape-number.npy", "a number instead of a tuple", "not a tuple", &floats("(2)"), 8),
        lone(
            "shape-long.npy",
            "a shape that would fill memory",
            "more than 64 dimensions",
            &floats(&format!("({})", "1,".repeat(500))),
            4,
        ),
        lone("shape-nine.npy", "nine dimensions", "9 dimensions, at most 8", &floats("(1,1,1,1,1,1,1,1,1)"), 4),
        lone("size-more.npy", "more values than bytes", "has 12 bytes, found 8", &floats("(3,)"), 8),
        lone("size-less.npy", "hidden bytes behind the values", "has 4 bytes, found 8", &floats("(1,)"), 8),
        lone(
            "type-objects.npy",
            "Python objects: code that runs on loading",
            "holds Python objects",
            &typed("'|O'"),
            8,
        ),
        lone("type-fields.npy", "records", "named fields", &typed("[('a', '<f4')]"), 8),
        lone("type-big-endian.npy", "bytes the other way round", "big-endian", &typed("'>f4'"), 8),
        lone(
            "type-native.npy",
            "an order that depends on the machine",
            "does not say its byte order",
            &typed("'=f4'"),
            8,
        ),
        lone("type-text.npy", "text", "not numbers that a model has", &typed("'<U1'"), 8),
        lone("type-void.npy", "bytes of no type", "not numbers that a model has", &typed("'|V4'"), 8),
        lone("type-empty.npy", "no type at all", "does not say its byte order", &typed("''"), 8),
        lone(
            "fortran.npy",
            "columns before rows",
            "Fortran order",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}",
            16,
        ),
        lone(
            "fortran-number.npy",
            "an order that is a number",
            "neither True nor False",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 2)}",
            16,
        ),
    ]
}

#[test]
fn the_committed_files_are_those_of_the_list() {
    hostile::assert_committed("npz", &attacks());
}

#[test]
fn every_attack_is_refused_with_its_reason() {
    hostile::assert_refused("npz", &attacks());
}

#[test]
fn a_file_cut_or_changed_anywhere_is_no_panic() {
    let (start, length, end) = (two().centrals[0] as u64, (two().end - two().centrals[0]) as u64, two().end as u64);
    let wide = two().wide(2, length, start, end).last(16, &[0xff; 4]).last(8, &[0xff; 4]);
    for whole in [two().bytes, wide.bytes, vector()] {
        hostile::assert_robust(&whole, |bytes| windlass_formats::npz::parse(bytes, &Limits::default()));
    }
}

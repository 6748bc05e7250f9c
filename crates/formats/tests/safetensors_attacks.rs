//! Hostile safetensors files and folders: each is refused with a message that says why.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/hostile.rs"]
mod hostile;

use hostile::{Attack, file};
use windlass_tensor::Limits;

/// A file of this header and this many bytes of data.
fn built(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

/// A header that says it has `length` bytes.
fn says(length: u64, rest: &str) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(rest.bytes());
    bytes
}

/// One tensor with these fields.
fn one(fields: &str, data: usize) -> Vec<u8> {
    built(&format!("{{\"w\":{{{fields}}}}}"), data)
}

fn attacks() -> Vec<Attack> {
    let mut all = headers();
    all.extend(tensors());
    all.extend(places());
    all.extend(indexes());
    all
}

fn headers() -> Vec<Attack> {
    let deep = format!("{{\"w\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    vec![
        file("empty.safetensors", "nothing at all", "the file is empty", Vec::new()),
        file("five-bytes.safetensors", "the length itself is cut", "begins with 8 bytes of length", vec![1; 5]),
        file(
            "length-2-63.safetensors",
            "2^63 bytes of header, negative if signed",
            "the limit is",
            says(1 << 63, "{}"),
        ),
        file("length-max.safetensors", "2^64-1 bytes: eight more wrap to 7", "the limit is", says(u64::MAX, "{}")),
        file("length-past-limit.safetensors", "one byte above the limit", "the limit is", says(100_000_001, "{}")),
        file("length-past-end.safetensors", "a header longer than the file", "the file has 10", says(99_000_000, "{}")),
        file("length-zero.safetensors", "no header, only data", "the header is not valid", says(0, "")),
        file("not-json.safetensors", "text that is not JSON", "the header is not valid", built("{w}", 0)),
        file("not-an-object.safetensors", "JSON, but a list", "the header is not valid", built("[]", 0)),
        file("two-objects.safetensors", "a second object behind the first", "trailing characters", built("{}{}", 0)),
        file("nul-padding.safetensors", "padded with zero bytes", "trailing characters", built("{}\0\0\0\0\0\0", 0)),
        file("deep.safetensors", "5000 lists within each other: recursion", "nested deeper than 64", built(&deep, 0)),
        file("not-utf8.safetensors", "bytes that are not text", "not UTF-8", {
            let mut bytes = says(4, "{\"");
            bytes.extend([0xff, 0xfe]);
            bytes
        }),
        file("lone-surrogate.safetensors", "half a character", "the header is not valid", built(r#"{"\ud800":{}}"#, 0)),
        file(
            "metadata-number.safetensors",
            "metadata that is not text",
            "expected a string",
            built(r#"{"__metadata__":{"a":1}}"#, 0),
        ),
        file(
            "metadata-object.safetensors",
            "metadata within metadata",
            "expected a string",
            built(r#"{"__metadata__":{"a":{"b":"c"}}}"#, 0),
        ),
        file(
            "metadata-twice.safetensors",
            "two metadata objects: which one holds?",
            "comes twice",
            built(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        ),
        file(
            "metadata-key-twice.safetensors",
            "a key with two values",
            "comes twice",
            built(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0),
        ),
        file(
            "lfs-pointer.safetensors",
            "what git leaves where LFS is not installed",
            "Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1200000000\n".to_vec(),
        ),
        file("web-page.safetensors", "a login page", "web page", b"<!DOCTYPE html><html></html>".to_vec()),
    ]
}

fn tensors() -> Vec<Attack> {
    let names = |a: &str, b: &str| {
        let one = |name: &str, from: u32| {
            format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{from},{}]}}", from + 1)
        };
        built(&format!("{{{},{}}}", one(a, 0), one(b, 1)), 2)
    };
    let long = "n".repeat(2000);
    vec![
        file(
            "name-twice.safetensors",
            "two tensors of one name: which one is checked?",
            "comes twice",
            names("w", "w"),
        ),
        file(
            "name-twice-escaped.safetensors",
            "one of them spelled with an escape",
            "comes twice",
            names("w", "\\u0077"),
        ),
        file("name-empty.safetensors", "a tensor without a name", "a name has 1 to", names("", "w")),
        file("name-nul.safetensors", "a name that ends early in C", "no zero byte", names("a\\u0000b", "w")),
        file("name-long.safetensors", "a name of 2000 bytes", "a name has 1 to", names(&long, "w")),
        file(
            "type-unknown.safetensors",
            "a type nobody knows",
            "element type \"F12\" is not known",
            one(r#""dtype":"F12","shape":[1],"data_offsets":[0,2]"#, 2),
        ),
        file(
            "type-lower-case.safetensors",
            "the type in another spelling",
            "is not known",
            one(r#""dtype":"f32","shape":[1],"data_offsets":[0,4]"#, 4),
        ),
        file(
            "type-sub-byte.safetensors",
            "two values in a byte",
            "less than a byte each",
            one(r#""dtype":"F4","shape":[2],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "type-missing.safetensors",
            "no type",
            "missing field `dtype`",
            one(r#""shape":[1],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "type-twice.safetensors",
            "two types",
            "duplicate field `dtype`",
            one(r#""dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "shape-overflow.safetensors",
            "a product of 2^64: it wraps to 0, and 0 bytes are there",
            "is too large",
            one(r#""dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]"#, 0),
        ),
        file(
            "shape-bytes-overflow.safetensors",
            "2^62 values of 4 bytes: the bytes wrap to 0",
            "is too large",
            one(r#""dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]"#, 0),
        ),
        file(
            "shape-overflow-zero.safetensors",
            "an overflow that a last dimension of 0 would hide",
            "is too large",
            one(r#""dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]"#, 0),
        ),
        file(
            "shape-negative.safetensors",
            "a negative dimension",
            "expected u64",
            one(r#""dtype":"U8","shape":[-1],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "shape-float.safetensors",
            "a dimension of 1e0",
            "expected u64",
            one(r#""dtype":"U8","shape":[1e0],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "shape-nine.safetensors",
            "nine dimensions",
            "9 dimensions, at most 8",
            one(r#""dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]"#, 1),
        ),
        file(
            "shape-long.safetensors",
            "a shape that would fill memory",
            "more than 64 dimensions",
            one(&format!(r#""dtype":"U8","shape":[{}1],"data_offsets":[0,1]"#, "1,".repeat(500)), 1),
        ),
        file(
            "shape-wrong-size.safetensors",
            "a shape of more bytes than are there: reads the neighbour",
            "has 8 bytes, found 4",
            one(r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#, 4),
        ),
    ]
}

fn places() -> Vec<Attack> {
    let two = |a: &str, b: &str, data| {
        let one = |name: &str, at: &str| format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{at}}}");
        built(&format!("{{{},{}}}", one("a", a), one("b", b)), data)
    };
    vec![
        file("overlap.safetensors", "two tensors share bytes", "inside the tensor before it", two("[0,4]", "[2,6]", 6)),
        file(
            "same-place.safetensors",
            "two tensors on the same bytes",
            "inside the tensor before",
            two("[0,4]", "[0,4]", 4),
        ),
        file(
            "hole.safetensors",
            "bytes between tensors that nobody sees",
            "belong to no tensor",
            two("[0,4]", "[8,12]", 12),
        ),
        file(
            "hole-first.safetensors",
            "hidden bytes before the first",
            "belong to no tensor",
            two("[4,8]", "[8,12]", 12),
        ),
        file(
            "trailing.safetensors",
            "hidden bytes at the end: a second format",
            "5 bytes follow",
            two("[0,4]", "[4,8]", 13),
        ),
        file("past-end.safetensors", "a tensor past the end", "it is half downloaded", two("[0,4]", "[4,8]", 7)),
        file("end-before-begin.safetensors", "a negative length", "before they begin", two("[0,4]", "[8,4]", 8)),
        file("offset-negative.safetensors", "an offset before the data", "expected u64", two("[-4,0]", "[0,4]", 4)),
        file("offset-float.safetensors", "an offset of 4.0", "expected u64", two("[0,4.0]", "[4,8]", 8)),
        file(
            "offset-huge.safetensors",
            "an offset above 2^64",
            "expected u64",
            two("[0,4]", "[4,18446744073709551616]", 8),
        ),
        file(
            "offset-max.safetensors",
            "an offset of 2^64-1",
            "found 18446744073709551611",
            two("[0,4]", "[4,18446744073709551615]", 8),
        ),
        file("offset-one.safetensors", "one offset only", "expected a tuple of size 2", two("[0]", "[4,8]", 8)),
        file("offset-three.safetensors", "three offsets", "the header is not valid", two("[0,4,8]", "[4,8]", 8)),
    ]
}

const PART: &str = "model-00001-of-00002.safetensors";
const OTHER: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A folder of two parts, `a` in the first and `b` in the second, and this weight map.
fn indexed(name: &'static str, idea: &'static str, stopped_by: &'static str, weight_map: &str) -> Attack {
    let index = format!("{{\"metadata\":{{\"total_size\":2}},\"weight_map\":{{{weight_map}}}}}");
    let part = |name| built(&format!("{{\"{name}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}}}"), 1);
    let files = vec![(PART, part("a")), (OTHER, part("b")), (INDEX, index.into_bytes())];
    Attack { name, idea, stopped_by, files }
}

fn indexes() -> Vec<Attack> {
    let map = |a: &str, b: &str| format!("\"a\":\"{a}\",\"b\":\"{b}\"");
    let mut missing = indexed(
        "index-missing-part",
        "half downloaded",
        "\"model-00002-of-00002.safetensors\" is missing",
        &map(PART, OTHER),
    );
    missing.files.remove(1);
    let mut unnamed = indexed(
        "parts-without-one",
        "half downloaded, and no index",
        "\"model-00001-of-00002.safetensors\" is missing",
        "",
    );
    unnamed.files.remove(2);
    unnamed.files.remove(0);
    let mut pointer = indexed("index-lfs-part", "a part that git did not bring", "Git LFS pointer", &map(PART, OTHER));
    pointer.files[1].1 = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec();
    let mut broken = indexed("index-not-json", "an index that is not JSON", "the index is not valid", "");
    broken.files[2].1 = b"{\"weight_map\":".to_vec();
    let mut deep = indexed("index-deep", "an index nested 5000 times", "nested deeper than 64", "");
    deep.files[2].1 = "[".repeat(5000).into_bytes();
    let mut list = indexed("index-list", "a weight map that is a list", "expected an object", "");
    list.files[2].1 = b"{\"weight_map\":[]}".to_vec();
    let mut empty = indexed("index-empty-file", "an index of no bytes", "the file is empty", "");
    empty.files[2].1 = Vec::new();
    let traversal = "is not a plain file name";
    vec![
        missing,
        unnamed,
        pointer,
        broken,
        deep,
        list,
        empty,
        indexed("index-parent", "a part outside of the folder", traversal, &map(PART, "../secret.safetensors")),
        indexed("index-absolute", "a part anywhere on the disk", traversal, &map(PART, "/etc/secret.safetensors")),
        indexed("index-backslash", "the same for Windows", traversal, &map(PART, "..\\\\secret.safetensors")),
        indexed("index-drive", "another drive", traversal, &map(PART, "C:secret.safetensors")),
        indexed("index-other-file", "a part that is no safetensors file", traversal, &map(PART, "config.json")),
        indexed("index-nul", "a name that ends early in C", traversal, &map(PART, "a\\u0000.safetensors")),
        indexed(
            "index-name-twice",
            "a tensor in two places",
            "comes twice",
            &format!("{},\"a\":\"{OTHER}\"", map(PART, OTHER)),
        ),
        indexed("index-wrong-part", "a tensor in another part than told", "the index says", &map(OTHER, PART)),
        indexed(
            "index-absent",
            "a tensor that is in no part",
            "does not hold it",
            &format!("{},\"c\":\"{PART}\"", map(PART, OTHER)),
        ),
        indexed(
            "index-unlisted",
            "a tensor that the index hides",
            "not in the index",
            &format!("\"a\":\"{PART}\",\"c\":\"{OTHER}\""),
        ),
    ]
}

#[test]
fn the_committed_files_are_those_of_the_list() {
    hostile::assert_committed("safetensors", &attacks());
}

#[test]
fn every_attack_is_refused_with_its_reason() {
    hostile::assert_refused("safetensors", &attacks());
}

#[test]
fn a_file_cut_or_changed_anywhere_is_no_panic() {
    let whole = one(r#""dtype":"F32","shape":[2,1],"data_offsets":[0,8]"#, 8);
    hostile::assert_robust(&whole, |bytes| windlass_formats::safetensors::parse(bytes, &Limits::default()));
}

#[test]
fn the_library_refuses_no_less() {
    // What it lets through and we refuse: names that come twice (it keeps the last), names and shapes past our limits.
    let ours_alone = ["name-twice", "name-empty", "name-nul", "name-long", "shape-nine", "shape-long", "type-sub-byte"];
    for attack in attacks().iter().filter(|a| a.files[0].0.is_empty()) {
        let accepted = safetensors::SafeTensors::deserialize(&attack.files[0].1).is_ok();
        let known = ours_alone.iter().any(|name| attack.name.starts_with(name))
            || attack.name == "metadata-key-twice.safetensors";
        assert!(!accepted || known, "{}", attack.name);
    }
}

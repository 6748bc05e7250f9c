//! GGUF files that attack their reader. Each is written out under `attacks/gguf`, which a test keeps equal to this list.

use super::gguf::*;

/// One file.
pub struct Attack {
    /// Name of the file.
    pub name: String,
    pub idea: &'static str,
    /// What the message must contain.
    pub stopped_by: &'static str,
    pub bytes: Vec<u8>,
}

const F32: u32 = 0;

/// All of them.
pub fn all() -> Vec<Attack> {
    let mut all = Vec::new();
    let mut add = |name: &str, idea, stopped_by, file: Builder| {
        all.push(Attack { name: format!("{name}.gguf"), idea, stopped_by, bytes: file.bytes() });
    };
    counts(&mut add);
    values(&mut add);
    names(&mut add);
    shapes(&mut add);
    places(&mut add);
    splits(&mut add);
    all
}

type Add<'a> = &'a mut dyn FnMut(&str, &'static str, &'static str, Builder);

fn new() -> Builder {
    Builder::new(3)
}

/// A file with this one value.
fn value(tag: u32, bytes: &[u8]) -> Builder {
    new().key("key", tag, bytes)
}

/// A file with a tensor of this shape (innermost first) and type, and 64 bytes of data.
fn shape(dims: &[u64], type_id: u32) -> Builder {
    new().tensor("weight", dims, type_id, 0).data(64)
}

fn counts(add: Add) {
    let announce = |tensors, keys| new().announce(tensors, keys);
    add(
        "tensor-count-max",
        "2^64-1 tensors: the size of their table overflows",
        "at most 1000000 are allowed",
        announce(Some(u64::MAX), None),
    );
    add(
        "tensor-count-plausible",
        "a million tensors in 24 bytes: memory is taken before the file is found to be empty",
        "the file has 0 bytes left",
        announce(Some(1_000_000), None),
    );
    add("key-count-max", "2^64-1 keys", "at most 100000 are allowed", announce(None, Some(u64::MAX)));
    add(
        "key-count-negative",
        "2^63 keys, negative for a reader with signed counts",
        "at most 100000 are allowed",
        announce(None, Some(1 << 63)),
    );
    add(
        "hang-43-bytes",
        "43 bytes that announce many keys: a reader that does not look at the length runs for minutes",
        "the file has 19 bytes left",
        new().key("abcdef", U8, &[0]).announce(None, Some(100_000)),
    );
    add(
        "narrow-count-max",
        "version 1 with its 4-byte counts at their largest",
        "at most 100000 are allowed",
        Builder::new(1).announce(None, Some(u64::from(u32::MAX))),
    );
    add("version-0", "a version that never was", "expected version 1, 2 or 3, found 0", Builder::new(0));
    add("version-4", "a version yet to come", "expected version 1, 2 or 3, found 4", Builder::new(4));
    add("big-endian", "the bytes of numbers the other way round", "big-endian", Builder::new(3u32.swap_bytes()));
}

fn values(add: Add) {
    add(
        "string-length-2-63",
        "a string of 2^63 bytes",
        "at most 67108864 are allowed",
        value(STRING, &(1u64 << 63).to_le_bytes()),
    );
    add(
        "string-length-wraps",
        "a string of 2^64-1 bytes: one more for the final zero makes 0",
        "at most 67108864 are allowed",
        value(STRING, &u64::MAX.to_le_bytes()),
    );
    add(
        "string-longer-than-file",
        "a string of 32 MiB in a file of less than 100 bytes",
        "the file has 0 bytes left",
        value(STRING, &(32u64 << 20).to_le_bytes()),
    );
    add(
        "array-count-wraps",
        "2^61 items of 8 bytes: the product is 0",
        "at most 16000000 are allowed",
        value(ARRAY, &new().array(U64, 1 << 61, &[])),
    );
    add(
        "array-count-plausible",
        "an array of 15 million strings and no bytes",
        "the file has 0 bytes left",
        value(ARRAY, &new().array(STRING, 15_000_000, &[])),
    );
    add(
        "vocabulary-item-too-long",
        "a vocabulary whose second token is longer than the file",
        "key \"tokenizer.ggml.tokens\"",
        new().key(
            "tokenizer.ggml.tokens",
            ARRAY,
            &new().array(STRING, 2, &[new().string(b"a"), 1000u64.to_le_bytes().to_vec()].concat()),
        ),
    );
    let level = |inner: Vec<u8>| new().array(ARRAY, 1, &inner);
    add(
        "nesting-depth",
        "arrays in arrays, 200 deep: the stack ends before the file",
        "nested deeper than 64 levels",
        value(ARRAY, &(0..200).fold(new().array(U8, 0, &[]), |inner, _| level(inner))),
    );
    add(
        "nesting-width",
        "every level of nested arrays announces as many items as there are bytes left: memory grows with their product",
        "the file has",
        value(
            ARRAY,
            &(0..50).fold(new().array(U8, 0, &[]), |inner, _| new().array(ARRAY, inner.len() as u64 / 12, &inner)),
        ),
    );
    add("value-type-13", "a value of a type that does not exist", "value type 13 does not exist", value(13, &[0; 8]));
    add(
        "array-type-max",
        "an array of items of a type that does not exist",
        "value type 4294967295 does not exist",
        value(ARRAY, &new().array(u32::MAX, 1, &[0; 8])),
    );
    add("bool-2", "a boolean that is neither true nor false", "a boolean is 0 or 1, found 2", value(BOOL, &[2]));
    let latin1 = [2u64.to_le_bytes().to_vec(), vec![b'a', 0xe9]].concat();
    add("value-not-utf8", "a string value that is not UTF-8", "not valid UTF-8 (at offset 48)", value(STRING, &latin1));
}

fn names(add: Add) {
    add("empty-key", "a key without a name", "a key is empty", new().key("", U8, &[0]));
    add(
        "key-not-utf8",
        "a key that is not UTF-8",
        "a key is not valid UTF-8",
        new().raw_key([2u64.to_le_bytes().to_vec(), vec![0xff, 0xfe], U8.to_le_bytes().to_vec(), vec![0]].concat()),
    );
    add("key-too-long", "a key of 1025 bytes", "at most 1024 are allowed", new().key(&"k".repeat(1025), U8, &[0]));
    add(
        "duplicate-key",
        "the same key twice: readers that take the first and the last disagree",
        "the key \"a\" is there twice",
        new().key("a", U8, &[0]).key("b", U8, &[0]).key("a", U8, &[1]),
    );
    let two = |first: &str, second: &str| new().tensor(first, &[8], F32, 0).tensor(second, &[8], F32, 32).data(64);
    add("duplicate-tensor", "the same tensor twice", "two tensors of this name", two("weight", "weight"));
    add("empty-tensor-name", "a tensor without a name", "must not be empty", two("weight", ""));
    add("zero-in-tensor-name", "a name that ends early for a reader in C", "no zero byte", two("weight", "weight\0x"));
    add(
        "tensor-name-too-long",
        "a tensor's name of 1025 bytes",
        "at most 1024 are allowed",
        two("a", &"n".repeat(1025)),
    );
    let bad = [2u64.to_le_bytes().to_vec(), vec![0xff, 0xfe]].concat();
    add(
        "tensor-name-not-utf8",
        "a tensor's name that is not UTF-8",
        "a tensor's name is not valid UTF-8",
        new().raw_tensor(bad, 1, &[8], F32, 0).data(32),
    );
}

fn shapes(add: Add) {
    let claimed = |n: u32| {
        let b = new();
        let name = b.string(b"weight");
        b.raw_tensor(name, n, &[2, 2, 2, 2, 2, 2, 2, 2, 2], F32, 0).data(64)
    };
    add("dimensions-9", "nine dimensions", "9 dimensions, at most 8 are allowed", claimed(9));
    add("dimensions-max", "2^32-1 dimensions", "4294967295 dimensions, at most 8", claimed(u32::MAX));
    add(
        "dimensions-product-wraps",
        "2^32 x 2^32 values: the product is 0, the buffer empty",
        "is too large",
        shape(&[1 << 32, 1 << 32], F32),
    );
    add(
        "dimensions-product-wraps-to-small",
        "a product that wraps to 16 values",
        "is too large",
        shape(&[(1 << 60) + 1, 16], F32),
    );
    add(
        "zero-hides-product",
        "one dimension is 0, so the product is too; the number of rows still wraps",
        "is too large",
        shape(&[0, 1 << 40, 1 << 40], F32),
    );
    add(
        "dimension-negative",
        "a dimension of -1 for a reader with signed sizes",
        "is too large",
        shape(&[u64::MAX], F32),
    );
    add("exabyte-tensor", "2^60 bytes, far more than was ever stored", "is too large", shape(&[1 << 60], 24));
    add(
        "bytes-wrap",
        "2^62 values of 4 bytes: the number of bytes is 0",
        "is too large",
        shape(&[1 << 31, 1 << 31], F32),
    );
    add(
        "tensor-larger-than-file",
        "a terabyte of weights in a file of some bytes",
        "reach past the end of the file",
        shape(&[1 << 38], F32),
    );
    add("part-of-a-block", "31 values of a type with blocks of 32", "whole blocks of 32", shape(&[31], 2));
    add("empty-row-of-blocks", "no columns at all, of a type with blocks", "whole blocks of 32", shape(&[0, 4], 2));
    add("type-43", "the first type id that is not assigned", "type id 43 is not known", shape(&[8], 43));
    add("type-max", "type id 2^32-1, or -1", "type id 4294967295 is not known", shape(&[8], u32::MAX));
    add("type-removed", "a type that was taken out of the format", "type id 4 was removed", shape(&[32], 4));
    add("type-internal", "Q8_1, which lives in memory only", "type id 9 (q8_1)", shape(&[32], 9));
}

fn places(add: Add) {
    let at = |offset| new().tensor("weight", &[8], F32, offset).data(64);
    add(
        "offset-wraps",
        "an offset whose sum with the beginning of the data is small",
        "reach past the end of the file",
        at(u64::MAX - 31),
    );
    add("offset-negative", "an offset of -2^63", "reach past the end of the file", at(1 << 63));
    add("offset-past-end", "an offset that leaves room for half of the tensor", "reach past the end", at(64));
    add("offset-unaligned", "an offset of 4", "not a multiple of 32", at(4));
    let two = |first, second| new().tensor("a", &[16], F32, first).tensor("b", &[16], F32, second).data(128);
    add("overlap-same", "two tensors in the same bytes", "overlap those of tensor \"a\"", two(0, 0));
    add("overlap-partly", "a tensor begins in the middle of another", "overlap those of tensor \"a\"", two(0, 32));
    add("overlap-backwards", "the same, with the later tensor first", "overlap those of tensor \"b\"", two(32, 0));
    add(
        "data-missing",
        "the header is whole, the data are not there",
        "half downloaded",
        new().tensor("weight", &[8], F32, 0),
    );
    let aligned = |alignment: u32| {
        new().key("general.alignment", U32, &alignment.to_le_bytes()).tensor("weight", &[8], F32, 0).data(64)
    };
    add("alignment-0", "alignment 0: a division by zero", "power of two up to 1048576, found 0", aligned(0));
    add("alignment-3", "alignment 3: masks need a power of two", "power of two up to 1048576, found 3", aligned(3));
    add("alignment-2-31", "alignment 2^31", "power of two up to 1048576, found 2147483648", aligned(1 << 31));
    add("alignment-max", "alignment 2^32-1: padding wraps", "found 4294967295", aligned(u32::MAX));
    add(
        "alignment-text",
        "an alignment that is a string",
        "general.alignment must be a u32",
        new().text("general.alignment", "32"),
    );
}

fn splits(add: Add) {
    let part = |number: u16, count: u16| {
        new().key("split.no", U16, &number.to_le_bytes()).key("split.count", U16, &count.to_le_bytes()).key(
            "split.tensors.count",
            I32,
            &1i32.to_le_bytes(),
        )
    };
    add("split-missing-00001-of-00003", "the first of three parts, alone", "part 2 of 3 is missing", part(0, 3));
    add(
        "split-many-00001-of-65535",
        "65535 parts: as many files to open",
        "65535 parts, at most 10000 are allowed",
        part(0, 65535),
    );
    add("split-number-past-count", "part 7 of 3", "split.no is 7, but split.count is 3", part(7, 3));
    add("split-unnamed", "a part whose name leads to no other part", "its name does not say so", part(0, 2));
    add(
        "split-itself-00002-of-00002",
        "a name that says another part than the keys: the first part would be sought for ever",
        "its name does not say so",
        part(0, 2),
    );
    add("split-count-only", "a split without its numbers", "split.no is not", new().key("split.count", U16, &[2, 0]));
    add(
        "split-count-text",
        "numbers of a split that are strings",
        "split.count must be a number",
        new().text("split.count", "2"),
    );
}

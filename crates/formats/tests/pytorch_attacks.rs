//! Hostile PyTorch files: pickles that reach for code, and zips, storages and views that lie.
#![allow(clippy::unwrap_used, reason = "a test program")]

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/pickle.rs"]
mod pickle;
#[path = "support/zip.rs"]
mod zip;

use hostile::{Attack, file};
use pickle::*;
use windlass_formats::pytorch::parse;
use windlass_tensor::Limits;
use zip::Archive;

/// Eight floats, as storage `0`.
fn values() -> Vec<u8> {
    (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// A view of the eight floats.
fn view(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor(storage("FloatStorage", "0", 8), offset, shape, strides)
}

fn whole() -> Vec<u8> {
    view(0, &[2, 4], &[4, 1])
}

/// An archive with this pickle.
fn archive(program: Vec<u8>) -> Archive {
    Archive::new(&[("a/data.pkl", program), ("a/byteorder", b"little".to_vec()), ("a/data/0", values())])
}

fn honest() -> Archive {
    archive(pickle(&dict(&[("w", whole())])))
}

/// The older form: its pickles, and storage `0` behind the number of its values.
fn legacy(object: Vec<u8>, keys: Vec<u8>, count: i64) -> Vec<u8> {
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let machine = dict(&[("little_endian", vec![0x88])]);
    let row =
        [pickle(magic), pickle(&int(1001)), pickle(&machine), object, keys, count.to_le_bytes().to_vec(), values()];
    row.concat()
}

fn keys(names: &[&str]) -> Vec<u8> {
    let names: Vec<Vec<u8>> = names.iter().map(|name| text(name)).collect();
    pickle(&[b"](", &names.concat()[..], b"e"].concat())
}

fn old() -> Vec<u8> {
    legacy(pickle(&dict(&[("w", whole())])), keys(&["0"]), 8)
}

/// A file that PyTorch itself wrote, with `bytes` in place of those `skip` behind the first `mark`.
fn torch(mark: &[u8], skip: usize, bytes: &[u8]) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pytorch/nothing.bin");
    let mut file = std::fs::read(path).unwrap();
    let at = skip + file.windows(mark.len()).position(|w| w == mark).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn attacks() -> Vec<Attack> {
    let mut all = calls();
    all.extend(machine());
    all.extend(dictionaries());
    all.extend(views());
    all.extend(zips());
    all.extend(rows());
    all.extend(folders());
    all
}

/// An attack whose pickle is this.
fn program(name: &'static str, idea: &'static str, stopped_by: &'static str, body: impl AsRef<[u8]>) -> Attack {
    file(name, idea, stopped_by, archive(pickle(body.as_ref())).bytes)
}

fn calls() -> Vec<Attack> {
    let reach = |module: &str, name: &str| dict(&[("w", whole()), ("x", call(global(module, name), &[text("id")]))]);
    let stack = |module: &str, name: &str| {
        let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
        [short(module), short(name), vec![0x93], tuple(&[text("1")]), b"R".to_vec()].concat()
    };
    let ordered = || global("collections", "OrderedDict");
    let id = |kind: &str| [tuple(&[text(kind), text("m"), text("f"), text("source")]), b"Q".to_vec()].concat();
    let with = |more: &[u8], before: Vec<u8>| [&before[..], more].concat();
    vec![
        program("system.pt", "os.system", "asks for posix.system", reach("posix", "system")),
        program("system-nt.pt", "os.system on Windows", "asks for nt.system", reach("nt", "system")),
        program("popen.pt", "a process", "asks for subprocess.Popen", reach("subprocess", "Popen")),
        program("eval.pt", "eval, by STACK_GLOBAL", "asks for builtins.eval", stack("builtins", "eval")),
        program("eval-old.pt", "eval, by Python 2's name", "asks for __builtin__.eval", reach("__builtin__", "eval")),
        program("getattr.pt", "a chain of getattr", "asks for builtins.getattr", reach("builtins", "getattr")),
        program(
            "getattr-dots.pt",
            "a chain of attributes behind an allowed name",
            "asks for torch._utils._rebuild_tensor_v2.__globals__",
            stack("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ),
        program("import.pt", "an import", "asks for importlib.import_module", reach("importlib", "import_module")),
        program("load.pt", "another pickle behind a library", "asks for torch.load", reach("torch", "load")),
        program("hub.pt", "a download", "asks for torch.hub.load", reach("torch.hub", "load")),
        program("module.pt", "a module of a library", "asks for torch.nn.modules.linear.Linear", {
            reach("torch.nn.modules.linear", "Linear")
        }),
        program(
            "other-module.pt",
            "an allowed name of another module",
            "asks for evil.OrderedDict",
            reach("evil", "OrderedDict"),
        ),
        program("empty-name.pt", "a name without letters", "asks for torch.,", reach("torch", "")),
        program("numpy.pt", "an array of another library", "asks for numpy.core.multiarray._reconstruct", {
            reach("numpy.core.multiarray", "_reconstruct")
        }),
        program("quantized.pt", "a packed tensor", "asks for torch.QInt8Storage", storage("QInt8Storage", "0", 8)),
        program("escape.pt", "a name that clears the terminal", "asks for ?[2J.system", reach("\u{1b}[2J", "system")),
        program("inst.pt", "INST", "asks for posix.system", b"(iposix\nsystem\n"),
        program("obj.pt", "OBJ", "an instance of a class (OBJ)", with(b"o", with(&ordered(), b"(".to_vec()))),
        program("newobj.pt", "NEWOBJ", "a new instance of a class (NEWOBJ)", with(b")\x81", ordered())),
        program("newobj-ex.pt", "NEWOBJ_EX", "a new instance of a class (NEWOBJ)", with(b")}\x92", ordered())),
        program("ext.pt", "a registered class", "a registered extension (EXT)", b"\x82\x01"),
        program("persid.pt", "an object by name", "outside of the file (PERSID)", b"Pposix.system\n"),
        program("buffer.pt", "a buffer that is not there", "outside of the file (NEXT_BUFFER)", b"\x97"),
        program("source.pt", "the source code of a module", "asks for the source code of a module", id("module")),
        program("pid.pt", "a persistent object of another kind", "that is no storage", id("file")),
        program("pid-text.pt", "a persistent object without a kind", "that is no storage", with(b"Q", text("0"))),
        program("reduce-dict.pt", "a call of a dictionary", "a call of what is no function", b"})R"),
        program("reduce-text.pt", "a call of a text", "a call of what is no function", with(b")R", text("eval"))),
        program("reduce-type.pt", "a call of a type", "arguments that do not fit", {
            call(global("torch", "float32"), &[text("1")])
        }),
        program("reduce-list.pt", "arguments that are a list", "are no tuple", with(b"]R", ordered())),
        program("ordered-dict.pt", "a dictionary made of a call", "arguments that do not fit", {
            call(ordered(), &[b"]".to_vec()])
        }),
        program("build-class.pt", "attributes of a class", "(BUILD)", with(b"}b", ordered())),
        program("build-tensor.pt", "attributes of a tensor", "(BUILD)", with(b"}b", whole())),
        file("bare.pt", "a pickle without a zip", "asks for posix.system", pickle(&reach("posix", "system"))),
    ]
}

fn machine() -> Vec<Attack> {
    let long = |code: u8, length: &[u8]| [&[code], length].concat();
    let doubled: Vec<u8> =
        (1..60u8).flat_map(|i| [b'0', b']', b'q', i, b'(', b'h', i - 1, b'h', i - 1, b'e']).collect();
    let deep = [vec![b']'; 5000], vec![b'a'; 4999]].concat();
    vec![
        program("memo-bomb.pt", "a list of 2^60 items out of 600 bytes", "holds a list of 2 items", {
            [b"]q\0".to_vec(), doubled].concat()
        }),
        program("memo-unset.pt", "a memo entry that was never set", "memo entry 5 is read", b"h\x05"),
        program("memo-far.pt", "memo entry 2^32-1", "memo entry 4294967295 is read", b"j\xff\xff\xff\xff"),
        program("memo-nothing.pt", "an entry out of nothing", "from an empty stack", b"q\0"),
        program("deep-marks.pt", "5000 marks", "nested deeper than 64", vec![b'('; 5000]),
        program("deep-lists.pt", "a list in 5000 lists", "holds a list of 1 items", deep),
        program("long-negative.pt", "an integer of -1 bytes", "a negative length", long(0x8b, &[0xff; 4])),
        program("long-huge.pt", "an integer of 2 GiB", "ends inside its pickle", long(0x8b, &[0xff, 0xff, 0xff, 0x7f])),
        program("text-huge.pt", "a text of 4 GiB", "ends inside its pickle", long(b'X', &[0xff; 4])),
        program("text-huge8.pt", "a text of 2^64-1 bytes", "ends inside its pickle", long(0x8d, &[0xff; 8])),
        program("text-negative.pt", "a text of -1 bytes", "a negative length", long(b'T', &[0xff; 4])),
        program("bytes-huge.pt", "2^63 bytes", "ends inside its pickle", long(0x8e, &[0, 0, 0, 0, 0, 0, 0, 0x80])),
        program("frame-huge.pt", "a frame of 2^64-1 bytes", "ends inside its pickle", long(0x95, &[0xff; 8])),
        program("text-not-utf8.pt", "a text that is none", "is not UTF-8", b"\x8c\x01\xff"),
        program("name-endless.pt", "a name without an end", "does not end", [b"c".to_vec(), vec![b'a'; 5000]].concat()),
        program("name-not-utf8.pt", "a name that is no text", "is not UTF-8", b"c\xff\xff\nx\n"),
        program("name-number.pt", "a name that is a number", "is no text", b"K\x01K\x02\x93"),
        program("no-value.pt", "no value at all", "from an empty stack", b""),
        program("no-mark.pt", "a tuple without a mark", "there is no mark", b"t"),
        program("below-mark.pt", "values from below a mark", "from an empty stack", b"K\x01(\x85"),
        program("append-number.pt", "a number as a list", "what is no list", b"K\x01K\x01a"),
        program("append-dict.pt", "a dictionary as a list", "what is no list", b"}K\x01a"),
        program("put-list.pt", "a list as a dictionary", "what is no dictionary", b"]K\x01K\x01s"),
        program("put-odd.pt", "a key without a value", "a key without a value", b"}(K\x01u"),
        program("left-over.pt", "more values than one", "ends with values that nothing uses", b"}}"),
        program("opcode.pt", "an instruction nobody knows", "instruction 0xff", b"\xff"),
        program("protocol.pt", "a protocol yet to come", "protocol 6 of pickles", b"\x80\x06}"),
        file("stop.pt", "a program without an end", "ends inside its pickle", archive(b"\x80\x02}".to_vec()).bytes),
        file("behind.pt", "a second program behind the first", "follow the pickle", {
            archive([pickle(&dict(&[("w", whole())])), b"cposix\nsystem\n.".to_vec()].concat()).bytes
        }),
    ]
}

fn dictionaries() -> Vec<Attack> {
    let again = |key: &str| [text(key), b"h\0".to_vec()].concat();
    let texts: Vec<Vec<u8>> = "abcdefgh".chars().map(|c| again(&c.to_string())).collect();
    let loud =
        [text(&"x".repeat(200)), b"q\x000}(".to_vec(), texts.concat(), text("w"), whole(), b"u".to_vec()].concat();
    let own = [b"}q\0".to_vec(), again("state_dict"), b"s".to_vec()].concat();
    vec![
        program("key-twice.pt", "two tensors of one name", "the name is there twice", {
            dict(&[("w", whole()), ("w", view(0, &[1], &[1]))])
        }),
        program("key-number.pt", "a name that is a number", "a key that is a number", {
            [b"}K\x01".to_vec(), whole(), b"s".to_vec()].concat()
        }),
        program("key-empty.pt", "a tensor without a name", "a name has 1 to", dict(&[("", whole())])),
        program("key-nul.pt", "a name that ends early in C", "no zero byte", dict(&[("a\0b", whole())])),
        program("key-long.pt", "a name of 5000 bytes", "a name has at most", dict(&[(&"n".repeat(5000), whole())])),
        program("own-member.pt", "a dictionary that is in itself", "within 4 dictionaries", own),
        program("texts.pt", "one text many times", "larger than the pickle", loud),
        program("no-tensors.pt", "a dictionary of other things", "holds no dictionary of tensors", {
            dict(&[("epoch", int(3))])
        }),
        program("list.pt", "a list", "holds a list of 0 items", b"]"),
        program("lone.pt", "a tensor alone", "holds a tensor and not", whole()),
    ]
}

fn views() -> Vec<Attack> {
    let add = |name, idea, stopped_by, tensor: Vec<u8>| program(name, idea, stopped_by, dict(&[("w", tensor)]));
    let stored = |key: &str, count: i64| tensor(storage("FloatStorage", key, count), 0, &[2], &[1]);
    let hooks = || call(global("collections", "OrderedDict"), &[]);
    let rebuild = |name: &str, rest: &[Vec<u8>]| {
        let first = [storage("FloatStorage", "0", 8), int(0), ints(&[2]), ints(&[1]), vec![0x89], hooks()];
        call(global("torch._utils", name), &[&first[..], rest].concat())
    };
    vec![
        add("storage-missing.pt", "bytes that are not there", "are not in the file", stored("9", 8)),
        add("storage-path.pt", "bytes of another file", "are not in the file", stored("../../../etc/passwd", 8)),
        add("storage-more.pt", "more values than bytes", "has 1073741824 values in 32 bytes", stored("0", 1 << 30)),
        add("storage-less.pt", "hidden values", "has 7 values in 32 bytes", stored("0", 7)),
        add("storage-wrap.pt", "a count that wraps to 8", "values in 32 bytes", stored("0", (1 << 62) + 8)),
        add("storage-negative.pt", "a negative count", "a storage has -8 values", stored("0", -8)),
        add("storage-type.pt", "a storage of a type", "has no class, key and count", {
            tensor(storage("float32", "0", 8), 0, &[2], &[1])
        }),
        add("storage-none.pt", "a tensor without a storage", "has no storage", tensor(int(0), 0, &[2], &[1])),
        add("untyped.pt", "bytes without a type", "does not say its type", {
            tensor(storage("UntypedStorage", "0", 32), 0, &[2], &[1])
        }),
        add("type-size.pt", "doubles out of floats", "is F64 in a storage of another size", {
            rebuild("_rebuild_tensor_v3", &[global("torch", "float64")])
        }),
        add("type-text.pt", "a type that is a text", "does not say its type", {
            rebuild("_rebuild_tensor_v3", &[text("float32")])
        }),
        add("conjugated.pt", "values that are not those in the file", "conjugated or negated", {
            rebuild("_rebuild_tensor_v2", &[dict(&[("neg", vec![0x88])])])
        }),
        add("arguments.pt", "a tensor of nothing", "4 or more arguments", {
            call(global("torch._utils", "_rebuild_tensor_v2"), &[])
        }),
        add("parameter.pt", "a parameter of a text", "arguments that do not fit", {
            call(global("torch._utils", "_rebuild_parameter"), &[text("w"), vec![0x88], hooks()])
        }),
        add("offset-past-end.pt", "a view past the end", "reach past its storage", view(7, &[2], &[1])),
        add("offset-negative.pt", "a view before its storage", "begins -1 values", view(-1, &[2], &[1])),
        add("offset-wrap.pt", "an offset that wraps to 0", "reach past its storage", view(1 << 62, &[2], &[1])),
        add("offset-text.pt", "an offset that is a text", "is no number", {
            let arguments = [storage("FloatStorage", "0", 8), text("0"), ints(&[2]), ints(&[1])];
            call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
        }),
        add("shape-more.pt", "more values than the storage has", "reach past its storage", view(0, &[9], &[1])),
        add("shape-wrap.pt", "a product that wraps to 0", "is too large", view(0, &[1 << 32, 1 << 32], &[1 << 32, 1])),
        add("shape-zero.pt", "nothing, counted to 2^62", "is too large", view(0, &[0, 1 << 62], &[1 << 62, 1])),
        add("shape-negative.pt", "a negative dimension", "the size of a tensor is -2", view(0, &[-2], &[1])),
        add("shape-nine.pt", "nine dimensions", "a shape 8 dimensions", view(0, &[1; 9], &[1; 9])),
        add("shape-long.pt", "a shape that would fill memory", "at most 64", view(0, &[1; 500], &[1; 500])),
        add("shape-long-number.pt", "a dimension of ten bytes", "no number of 64 bits", {
            let shape = tuple(&[[&[0x8a, 10][..], &[1; 10]].concat()]);
            let arguments = [storage("FloatStorage", "0", 8), int(0), shape, ints(&[1])];
            call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
        }),
        add("strides-less.pt", "dimensions without strides", "2 dimensions and 1 strides", view(0, &[2, 2], &[1])),
        add("strides-huge.pt", "strides that wrap", "is a view with strides", view(0, &[2, 2], &[i64::MAX, 1])),
        add("strides-zero.pt", "one value as a million", "is a view with strides", view(0, &[1 << 20], &[0])),
        add("strides-negative.pt", "values from behind", "the stride of a tensor is -1", view(1, &[2], &[-1])),
        add("strides-columns.pt", "columns before rows", "is a view with strides", view(0, &[4, 2], &[1, 4])),
    ]
}

fn zips() -> Vec<Attack> {
    let add = |name, idea, stopped_by, archive: Archive| file(name, idea, stopped_by, archive.bytes);
    let members = |names: [&'static str; 3]| {
        let program = pickle(&dict(&[("w", whole())]));
        Archive::new(&names.map(|name| (name, if name.ends_with("pkl") { program.clone() } else { values() })))
    };
    let mut before = honest();
    before.bytes.splice(4..4, *b"MZ");
    let mut twice = honest();
    let second = twice.bytes[twice.centrals[0]..].to_vec();
    twice.bytes.extend(second);
    let length = |n: u32| [n.to_le_bytes(); 2].concat();
    let (start, size, end) = (honest().centrals[0] as u64, (honest().end - honest().centrals[0]) as u64, honest().end);
    vec![
        add("two-pickles.pt", "two programs: which one holds?", "two members data.pkl", {
            members(["a/data.pkl", "b/data.pkl", "a/data/0"])
        }),
        add("two-storages.pt", "two members of one name", "two members of this name", {
            members(["a/data.pkl", "a/data/0", "a/data/0"])
        }),
        add("no-pickle.pt", "no program", "has no data.pkl", members(["a/version", "a/data/1", "a/data/0"])),
        add("script.pt", "a program of TorchScript", "is a TorchScript program", {
            members(["a/data.pkl", "a/constants.pkl", "a/data/0"])
        }),
        add("big-endian.pt", "bytes the other way round", "not little-endian", {
            Archive::new(&[("a/data.pkl", pickle(b"}")), ("a/byteorder", b"big".to_vec())])
        }),
        add("two-directories.pt", "a directory behind the directory", "it should end at", twice),
        add("before.pt", "bytes inside of the first header", "it should end at", before),
        add("compressed.pt", "a bomb", "is compressed", honest().central(2, 10, &[8, 0])),
        add("encrypted.pt", "an encrypted program", "is encrypted", honest().central(0, 8, &[1, 0])),
        add("overlap.pt", "a program that is its own values", "overlaps", honest().central(2, 42, &[0; 4])),
        add("size-huge.pt", "a member longer than the file", "reaches into the zip directory", {
            honest().central(2, 20, &length(1 << 30)).local(2, 18, &length(1 << 30))
        }),
        add("pickle-other.pt", "another name in the member's own header", "different names", {
            honest().local(0, 30, b"b")
        }),
        add(
            "count-less.pt",
            "a member that the end record hides",
            "goes on after them",
            honest().last(8, &[2, 0, 2, 0]),
        ),
        add("zip64-count.pt", "two end records, two counts", "say different things", {
            honest().wide(4, size, start, end as u64)
        }),
        add("zip64-directory.pt", "a second directory by the 64-bit record", "say different things", {
            honest().wide(3, size - 1, start + 1, end as u64)
        }),
        add("zip64-elsewhere.pt", "a locator that points to the data", "is not where its locator says", {
            honest().wide(3, size, start, 0)
        }),
        add("trailing-sizes.pt", "sizes behind the data that are not there", "behind its data", {
            honest().central(0, 8, &[8, 0]).local(0, 6, &[8, 0])
        }),
        file("trailing-crc.pt", "another checksum behind the data", "behind its data", torch(b"PK\x07\x08", 4, &[1])),
        file("trailing-size.pt", "another size behind the data", "behind its data", torch(b"PK\x07\x08", 12, &[1])),
        file("trailing-mark.pt", "no mark behind the data", "behind its data", torch(b"PK\x07\x08", 0, b"XX")),
        file("trailing-flag.pt", "sizes behind the data by one header only", "different flags", {
            torch(b"PK\x03\x04", 6, &[0, 8])
        }),
        file("trailing-local.pt", "a size where none is needed", "checksums", torch(b"PK\x03\x04", 18, &[1])),
    ]
}

fn rows() -> Vec<Attack> {
    let object = || pickle(&dict(&[("w", whole())]));
    let magic = |body: &[u8]| [pickle(body), pickle(&int(1001))].concat();
    let two = [old(), 8i64.to_le_bytes().to_vec(), values()].concat();
    let version = {
        let mut file = old();
        file[pickle(b"\x8a\x0a0123456789").len() + 4] ^= 1;
        file
    };
    let mut order = old();
    let at = order.windows(6).position(|w| w == b"endian").unwrap() + 6;
    order[at] = 0x89;
    vec![
        file("magic.pt", "another pickle", "not one of torch.save", magic(&int(5))),
        file("magic-text.pt", "a text instead of the number", "not one of torch.save", magic(&text("torch"))),
        file("version.pt", "a version nobody knows", "not of version 1001", version),
        file("order.pt", "bytes the other way round", "little-endian", order),
        file("keys-number.pt", "keys that are no texts", "no list of texts", {
            legacy(object(), pickle(b"](K\x01e"), 8)
        }),
        file("keys-none.pt", "values without a key", "follow the last storage", legacy(object(), keys(&[]), 8)),
        file("keys-other.pt", "a storage that no tensor has", "that no tensor has", legacy(object(), keys(&["1"]), 8)),
        file("keys-twice.pt", "two storages of one key", "two storages of this key", {
            let first = legacy(object(), keys(&["0", "0"]), 8);
            [first, 8i64.to_le_bytes().to_vec(), values()].concat()
        }),
        file("count-huge.pt", "2^63-1 values", "it is truncated", legacy(object(), keys(&["0"]), i64::MAX)),
        file("count-negative.pt", "-1 values", "it is truncated", legacy(object(), keys(&["0"]), -1)),
        file("count-small.pt", "fewer values than the program says", "has 8 values in 28 bytes", {
            let whole = legacy(object(), keys(&["0"]), 7);
            whole[..whole.len() - 4].to_vec()
        }),
        file("row-behind.pt", "a storage behind the last", "follow the last storage", two),
        file("row-cut.pt", "a file cut short", "it is truncated", old()[..old().len() - 1].to_vec()),
        file("row-keys-cut.pt", "a file cut before its keys", "ends inside its pickle", {
            legacy(object(), Vec::new(), 8)[..old().len() - 60].to_vec()
        }),
        file("storage-view.pt", "a view in a view", "a storage is a view of another", {
            let id = [
                text("storage"),
                global("torch", "FloatStorage"),
                text("0"),
                text("cpu"),
                int(8),
                tuple(&[text("v"), int(1), int(4)]),
            ];
            let storage = [tuple(&id), b"Q".to_vec()].concat();
            legacy(pickle(&dict(&[("w", tensor(storage, 0, &[2], &[1]))])), keys(&["0"]), 8)
        }),
    ]
}

fn folders() -> Vec<Attack> {
    let index = |part: &str, name: &str| format!("{{\"weight_map\": {{\"{name}\": \"{part}\"}}}}").into_bytes();
    let add = |name, idea, stopped_by, part: &str, tensor: &str| Attack {
        name,
        idea,
        stopped_by,
        files: vec![("pytorch_model.bin.index.json", index(part, tensor)), ("pytorch_model-1.bin", honest().bytes)],
    };
    vec![
        add("index-path", "a part outside of the folder", "is not a plain file name", "../pytorch_model-1.bin", "w"),
        add("index-missing", "a part that is not there", "is missing", "pytorch_model-2.bin", "w"),
        add("index-less", "a tensor that the index hides", "not in the index", "pytorch_model-1.bin", "v"),
    ]
}

#[test]
fn the_committed_files_are_those_of_the_list() {
    hostile::assert_committed("pytorch", &attacks());
}

#[test]
fn every_attack_is_refused_with_its_reason() {
    hostile::assert_refused("pytorch", &attacks());
}

#[test]
fn what_the_attacks_are_made_of_is_honest() {
    for file in [honest().bytes, old(), torch(b"PK", 0, b"PK")] {
        parse(&file, &Limits::default()).unwrap();
    }
}

#[test]
fn a_file_cut_or_changed_anywhere_is_no_panic() {
    for whole in [honest().bytes, old(), torch(b"PK", 0, b"PK")] {
        hostile::assert_robust(&whole, |bytes| parse(bytes, &Limits::default()));
    }
}

//! Pickles written instruction by instruction, honest and not.

/// `module.name`.
pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(number: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn ints(numbers: &[i64]) -> Vec<u8> {
    tuple(&numbers.iter().map(|n| int(*n)).collect::<Vec<_>>())
}

/// `function(*arguments)`.
pub fn call(function: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments), b"R".to_vec()].concat()
}

pub fn dict(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<Vec<u8>> = members.iter().map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &items.concat()[..], b"u"].concat()
}

/// A storage of `count` values of the class `torch.<class>`.
pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let id = [text("storage"), global("torch", class), text(key), text("cpu"), int(count)];
    [tuple(&id), b"Q".to_vec()].concat()
}

/// A view of a storage.
pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let rebuild = global("torch._utils", "_rebuild_tensor_v2");
    call(rebuild, &[storage, int(offset), ints(shape), ints(strides), vec![0x89], hooks])
}

/// A whole pickle of protocol 2.
pub fn pickle(body: &[u8]) -> Vec<u8> {
    [&[0x80, 2][..], body, b"."].concat()
}

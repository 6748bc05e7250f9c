//! The short list of names that a pickle may use, and what each of them means. Nothing else has a meaning.

use windlass_tensor::DType;

use super::pickle::{Object, Pickle, Storage, Tensor, Value, code_problem};
use crate::Problem;

/// A name of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    Size,
    Parameter,
    /// `_rebuild_tensor`, `_rebuild_tensor_v2` and `_rebuild_tensor_v3`, which says the type itself.
    Tensor {
        version: u8,
    },
    /// A class of storages and the type of its values.
    Storage(Option<DType>),
    Type(DType),
}

/// What a call gives.
pub enum Made {
    Object(Object),
    Value(Value),
}

/// PyTorch's types: the class of storages (newer types have none), the name of the type.
const TYPES: [(&str, &str, DType); 17] = [
    ("DoubleStorage", "float64", DType::F64),
    ("FloatStorage", "float32", DType::F32),
    ("HalfStorage", "float16", DType::F16),
    ("BFloat16Storage", "bfloat16", DType::BF16),
    ("LongStorage", "int64", DType::I64),
    ("IntStorage", "int32", DType::I32),
    ("ShortStorage", "int16", DType::I16),
    ("CharStorage", "int8", DType::I8),
    ("ByteStorage", "uint8", DType::U8),
    ("BoolStorage", "bool", DType::Bool),
    ("ComplexFloatStorage", "complex64", DType::C64),
    ("", "uint16", DType::U16),
    ("", "uint32", DType::U32),
    ("", "uint64", DType::U64),
    ("", "float8_e4m3fn", DType::F8E4M3),
    ("", "float8_e5m2", DType::F8E5M2),
    ("", "float8_e8m0fnu", DType::F8E8M0),
];

/// The class of storages and the name of a type; the class is empty for newer types, `None` for those PyTorch lacks.
pub fn name_of(dtype: DType) -> Option<(&'static str, &'static str)> {
    TYPES.iter().find(|row| row.2 == dtype).map(|row| (row.0, row.1))
}

/// The meaning of `module.name`, or the refusal that names it.
pub fn find(module: &str, name: &str) -> Result<Global, Problem> {
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor") => Some(Global::Tensor { version: 1 }),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::Tensor { version: 2 }),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::Tensor { version: 3 }),
        ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
        ("torch.storage" | "torch", "UntypedStorage") => Some(Global::Storage(None)),
        ("torch", name) if !name.is_empty() => {
            let class = TYPES.iter().find(|row| row.0 == name).map(|row| Global::Storage(Some(row.2)));
            class.or_else(|| TYPES.iter().find(|row| row.1 == name).map(|row| Global::Type(row.2)))
        }
        _ => None,
    };
    found.ok_or_else(|| code_problem(&qualified(module, name)))
}

/// The name of a global as Python writes it.
pub fn qualified(module: &str, name: &str) -> String {
    let plain = |text: &str| text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    format!("{}.{}", plain(module), plain(name))
}

/// What `function(*arguments)` gives.
pub fn call(pickle: &Pickle, function: Value, arguments: Value) -> Result<Made, Problem> {
    let Value::Global(function) = function else {
        return Err(code_problem("a call of what is no function (REDUCE)"));
    };
    let arguments = pickle.tuple(arguments).ok_or_else(|| bad("the arguments of a call are no tuple"))?;
    match (function, arguments) {
        (Global::OrderedDict, []) => Ok(Made::Object(Object::Dict(Vec::new()))),
        (Global::Size, [dimensions]) if pickle.tuple(*dimensions).is_some() => Ok(Made::Value(*dimensions)),
        (Global::Parameter, [data, ..]) if pickle.tensor(*data).is_some() => Ok(Made::Value(*data)),
        (Global::Tensor { version }, _) => Ok(Made::Object(Object::Tensor(tensor(pickle, version, arguments)?))),
        _ => Err(bad(format!("{function:?} is called with {} arguments that do not fit", arguments.len()))),
    }
}

/// A tensor from `(storage, offset, size, strides)`, then what only matters to training, then (version 3) its type.
fn tensor(pickle: &Pickle, version: u8, arguments: &[Value]) -> Result<Tensor, Problem> {
    let [storage, offset, size, strides, rest @ ..] = arguments else {
        return Err(bad(format!("a tensor has 4 or more arguments, found {}", arguments.len())));
    };
    let Some(Object::Storage(storage)) = pickle.object(*storage) else { return Err(bad("a tensor has no storage")) };
    let typed = if version == 3 { rest.get(2).copied() } else { None };
    let dtype = match (version, typed) {
        (3, Some(Value::Global(Global::Type(dtype)))) => Some(dtype),
        (3, _) => None,
        _ => storage.dtype,
    };
    let dtype = dtype.ok_or_else(|| bad("a tensor does not say its type"))?;
    // Flags such as "conjugated", which change what the values mean.
    let flags = rest.get(if version == 3 { 3 } else { 2 }).copied().unwrap_or(Value::None);
    if flags != Value::None && pickle.dict(flags).is_none_or(|members| !members.is_empty()) {
        let problem =
            Problem::new("lazy-view", "a tensor is a conjugated or negated view, whose values are not stored");
        return Err(problem.help("save tensor.resolve_conj().resolve_neg() of it"));
    }
    let Value::Int(offset) = *offset else { return Err(bad("the offset of a tensor is no number")) };
    let offset = u64::try_from(offset).map_err(|_| bad(format!("a tensor begins {offset} values into its storage")))?;
    let (shape, strides) = (numbers(pickle, *size, "size")?, numbers(pickle, *strides, "stride")?);
    if shape.len() != strides.len() {
        let message = format!("a tensor has {} dimensions and {} strides", shape.len(), strides.len());
        return Err(bad(message));
    }
    Ok(Tensor { storage: *storage, dtype, offset, shape, strides })
}

fn numbers(pickle: &Pickle, value: Value, what: &str) -> Result<Vec<u64>, Problem> {
    let items = pickle.tuple(value).ok_or_else(|| bad(format!("the {what} of a tensor is no tuple")))?;
    if items.len() > 64 {
        return Err(bad(format!("the {what} of a tensor has {} items, at most 64 are possible", items.len())));
    }
    let number = |item: &Value| match item {
        Value::Int(n) => u64::try_from(*n).map_err(|_| bad(format!("the {what} of a tensor is {n}"))),
        _ => Err(bad(format!("the {what} of a tensor holds what is no number of 64 bits"))),
    };
    items.iter().map(number).collect()
}

/// The storage of a persistent id: `("storage", class, key, device, count)`; the legacy form adds a view.
pub fn storage(pickle: &Pickle, id: Value) -> Result<Storage, Problem> {
    let items = pickle.tuple(id).unwrap_or_default();
    let kind = items.first().and_then(|kind| pickle.text(*kind));
    if kind == Some("module") {
        return Err(code_problem("the source code of a module"));
    }
    let (Some("storage"), [_, class, key, _, count, view @ ..]) = (kind, items) else {
        return Err(bad("something outside of the pickle is asked for that is no storage"));
    };
    if !matches!(view, [] | [Value::None]) {
        let problem = Problem::new("storage-view", "a storage is a view of another, as PyTorch 0.3 and older wrote it");
        return Err(problem.help("load and save it with a newer PyTorch"));
    }
    match (*class, *key, *count) {
        (Value::Global(Global::Storage(dtype)), Value::Text(key), Value::Int(count)) => {
            let count = u64::try_from(count).map_err(|_| bad(format!("a storage has {count} values")))?;
            Ok(Storage { key, dtype, count })
        }
        _ => Err(bad("a storage has no class, key and count")),
    }
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new("bad-pickle", message)
}

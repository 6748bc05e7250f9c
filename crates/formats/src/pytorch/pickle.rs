//! A machine for the pickles of PyTorch: protocols 2 to 5, and no call but those of [`super::globals`].
//!
//! Whatever the program in a pickle does, the machine can only make numbers, strings, tuples, lists, dictionaries and
//! descriptions of tensors. Objects lie in one list and refer to each other by number, so that nothing recurses over them
//! and an object that is used a million times is there once.

use std::collections::HashMap;

use windlass_tensor::{DType, Limits};

use super::globals::{self, Global};
use crate::Problem;
use crate::json::short;

/// Most items of a pickle, an object or memo entry counting as [`WEIGHT`] of them. A tensor takes about 90.
const ITEMS: usize = 16 << 20;
/// What an object weighs beside its items, and what a memo entry weighs.
const WEIGHT: usize = 4;
/// Most values on the stack at a time; writers empty it every 1000 items.
const STACK: usize = 1 << 20;
/// Newest protocol that is known.
const PROTOCOL: u8 = 5;

/// A value on the stack or inside of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer that does not fit: where its bytes are.
    Long(Span),
    Float(f64),
    Text(Span),
    Bytes,
    Global(Global),
    /// Number of an object.
    Object(usize),
}

/// A range of the pickle's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: usize,
    length: usize,
}

/// What a pickle can make.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(Tensor),
}

/// Bytes of tensors, by reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Name of the bytes in the file.
    pub key: Span,
    /// `None` where it is bytes that tensors give their own types.
    pub dtype: Option<DType>,
    /// Values of `dtype`, or bytes.
    pub count: u64,
}

/// A view of a storage, not yet compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub storage: Storage,
    pub dtype: DType,
    /// Values before the first.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

impl Storage {
    /// Bytes of one of its values.
    pub fn value_bytes(&self) -> u64 {
        self.dtype.map_or(1, |dtype| dtype.size() as u64)
    }
}

/// A pickle that was run to its end.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub root: Value,
    /// Bytes of the program.
    pub length: usize,
    bytes: &'a [u8],
    objects: Vec<Object>,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle at the beginning of `bytes`, which lie at `base` in the file. A pickle that goes on after the last
    /// of them is refused with the code `truncated`.
    pub fn run(bytes: &'a [u8], base: u64, limits: &Limits) -> Result<Pickle<'a>, Problem> {
        let mut machine = Machine {
            pickle: Pickle { root: Value::None, length: 0, bytes, objects: Vec::new() },
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            used: 0,
            limits,
        };
        let mut start = 0;
        loop {
            match machine.step() {
                Ok(false) => start = machine.at,
                Ok(true) => return Ok(machine.pickle),
                Err(problem) => return Err(problem.offset(base.saturating_add(start as u64))),
            }
        }
    }

    /// All storages that were asked for.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The text of a value, if it is one.
    pub fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(span) => Some(self.span(span)),
            _ => None,
        }
    }

    /// The text at a place where one was read.
    pub fn span(&self, span: Span) -> &'a str {
        std::str::from_utf8(self.raw(span)).unwrap_or_default()
    }

    /// The little-endian bytes of a [`Value::Long`].
    pub fn raw(&self, span: Span) -> &'a [u8] {
        self.bytes.get(span.start..).and_then(|rest| rest.get(..span.length)).unwrap_or_default()
    }

    /// The object of a value, if it is one.
    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(number) => self.objects.get(number),
            _ => None,
        }
    }

    /// The members of a dictionary.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.object(value)? {
            Object::Dict(members) => Some(members),
            _ => None,
        }
    }

    /// The items of a tuple.
    pub fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.object(value)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn list(&self, value: Value) -> Option<&[Value]> {
        match self.object(value)? {
            Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// The tensor of a value, if it is one.
    pub fn tensor(&self, value: Value) -> Option<&Tensor> {
        match self.object(value)? {
            Object::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

struct Machine<'a, 'l> {
    pickle: Pickle<'a>,
    at: usize,
    stack: Vec<Value>,
    /// Lengths of the stack where marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    used: usize,
    limits: &'l Limits,
}

impl Machine<'_, '_> {
    /// Runs one instruction; true where it was the last.
    fn step(&mut self) -> Result<bool, Problem> {
        let code = self.byte()?;
        match code {
            b'.' => return self.stop().map(|()| true),
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'(' => self.mark()?,
            b'0' => self.drop_top()?,
            b'1' => self.pop_mark().map(drop)?,
            b'2' => self.top().and_then(|top| self.push(top))?,
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | b'G' | 0x8a | 0x8b => {
                let value = self.number(code)?;
                self.push(value)?;
            }
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | 0x96 => {
                let value = self.string(code)?;
                self.push(value)?;
            }
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'a' | b'e' => self.sequence(code)?,
            b'}' | b'd' | b's' | b'u' => self.dictionary(code)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(code)?,
            b'c' | 0x93 | b'R' | b'b' | b'Q' => self.call(code)?,
            _ => return Err(self.refuse(code)),
        }
        Ok(false)
    }

    fn protocol(&mut self) -> Result<(), Problem> {
        let version = self.byte()?;
        if !(2..=PROTOCOL).contains(&version) {
            return Err(bad(format!("protocol {version} of pickles is not known: expected 2 to {PROTOCOL}")));
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Problem> {
        let length = u64::from_le_bytes(self.array()?);
        if length > (self.pickle.bytes.len() - self.at) as u64 {
            return Err(truncated().help("download it again"));
        }
        Ok(())
    }

    fn number(&mut self, code: u8) -> Result<Value, Problem> {
        Ok(match code {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8a => self.byte().and_then(|n| self.long(n.into()))?,
            _ => {
                let length = i32::from_le_bytes(self.array()?);
                let length = u64::try_from(length).map_err(|_| bad("an integer has a negative length"))?;
                self.long(length)?
            }
        })
    }

    /// An integer of `length` bytes, little-endian, in two's complement.
    fn long(&mut self, length: u64) -> Result<Value, Problem> {
        let span = self.take(length)?;
        let raw = self.pickle.raw(span);
        if raw.len() > 8 {
            return Ok(Value::Long(span));
        }
        let fill = if raw.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..raw.len()].copy_from_slice(raw);
        Ok(Value::Int(i64::from_le_bytes(whole)))
    }

    fn string(&mut self, code: u8) -> Result<Value, Problem> {
        let length = match code {
            0x8c | b'U' | b'C' => self.byte()?.into(),
            b'X' | b'B' => u32::from_le_bytes(self.array()?).into(),
            b'T' => {
                u64::try_from(i32::from_le_bytes(self.array()?)).map_err(|_| bad("a string has a negative length"))?
            }
            _ => u64::from_le_bytes(self.array()?),
        };
        let span = self.take(length)?;
        if matches!(code, b'B' | b'C' | 0x8e | 0x96) {
            return Ok(Value::Bytes);
        }
        std::str::from_utf8(self.pickle.raw(span)).map_err(|_| bad("a string is not UTF-8"))?;
        Ok(Value::Text(span))
    }

    fn sequence(&mut self, code: u8) -> Result<(), Problem> {
        match code {
            b'a' => {
                let item = self.pop()?;
                return self.append(vec![item]);
            }
            b'e' => {
                let items = self.pop_mark()?;
                return self.append(items);
            }
            _ => {}
        }
        let made = match code {
            b')' => Object::Tuple(Vec::new()),
            b'l' => Object::List(self.pop_mark()?),
            b't' => Object::Tuple(self.pop_mark()?),
            b']' => Object::List(Vec::new()),
            few => Object::Tuple(self.pop_many(usize::from(few - 0x84))?),
        };
        self.push_object(made)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Problem> {
        self.count(items.len())?;
        match self.top_object()? {
            Object::List(list) => list.extend(items),
            _ => return Err(bad("items are appended to what is no list")),
        }
        Ok(())
    }

    fn dictionary(&mut self, code: u8) -> Result<(), Problem> {
        let items = match code {
            b'}' => return self.push_object(Object::Dict(Vec::new())),
            b's' => self.pop_many(2)?,
            _ => self.pop_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(bad("a dictionary has a key without a value"));
        }
        if code == b'd' {
            self.push_object(Object::Dict(Vec::new()))?;
        }
        self.count(items.len())?;
        match self.top_object()? {
            Object::Dict(members) => members.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err(bad("members are put into what is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, code: u8) -> Result<(), Problem> {
        let key = match code {
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| too_many())?,
        };
        if matches!(code, b'h' | b'j') {
            let value = self.memo.get(&key).ok_or_else(|| bad(format!("memo entry {key} is read before it is set")))?;
            return self.push(*value);
        }
        let top = self.top()?;
        self.count(WEIGHT)?;
        self.memo.insert(key, top);
        Ok(())
    }

    /// The instructions by which a pickle reaches for code.
    fn call(&mut self, code: u8) -> Result<(), Problem> {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = globals::find(self.pickle.span(module), self.pickle.span(name))?;
                self.push(Value::Global(global))
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let names: Vec<&str> = names.iter().filter_map(|name| self.pickle.text(*name)).collect();
                let [module, name] = names[..] else { return Err(bad("the name of a global is no text")) };
                let global = globals::find(module, name)?;
                self.push(Value::Global(global))
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                match globals::call(&self.pickle, function, arguments)? {
                    globals::Made::Object(object) => self.push_object(object),
                    globals::Made::Value(value) => self.push(value),
                }
            }
            b'b' => {
                // The state of an OrderedDict is its attribute `_metadata`: versions of modules, which no tensor needs.
                let state = self.pop()?;
                let target = self.top()?;
                match (self.pickle.dict(target), self.pickle.dict(state)) {
                    (Some(_), Some(_)) => Ok(()),
                    _ => Err(code_problem("an instruction to set the state of an object (BUILD)")),
                }
            }
            _ => {
                let id = self.pop()?;
                let storage = globals::storage(&self.pickle, id)?;
                self.push_object(Object::Storage(storage))
            }
        }
    }

    /// Why an instruction is not run, naming what it would have reached.
    fn refuse(&mut self, code: u8) -> Problem {
        let what = match code {
            b'i' => match (self.line(), self.line()) {
                (Ok(module), Ok(name)) => globals::qualified(self.pickle.span(module), self.pickle.span(name)),
                _ => "a class (INST)".into(),
            },
            b'o' => "an instance of a class (OBJ)".into(),
            0x81 | 0x92 => "a new instance of a class (NEWOBJ)".into(),
            0x82..=0x84 => "a registered extension (EXT)".into(),
            b'P' => "an object outside of the file (PERSID)".into(),
            0x97 | 0x98 => "a buffer outside of the file (NEXT_BUFFER)".into(),
            other => {
                let help = "save it with torch.save, which writes protocol 2";
                return bad(format!("instruction {other:#04x} is not one of a file of tensors")).help(help);
            }
        };
        code_problem(&what)
    }

    fn stop(&mut self) -> Result<(), Problem> {
        self.pickle.root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(bad("the pickle ends with values that nothing uses"));
        }
        self.pickle.length = self.at;
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Problem> {
        if self.marks.len() >= self.limits.nesting {
            let message = format!("objects are nested deeper than {}", self.limits.nesting);
            return Err(Problem::new("too-deep", message));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Problem> {
        if self.stack.len() >= STACK {
            return Err(too_many());
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object) -> Result<(), Problem> {
        self.count(match &object {
            Object::Tuple(items) | Object::List(items) => WEIGHT + items.len(),
            Object::Tensor(tensor) => WEIGHT + tensor.shape.len() + tensor.strides.len(),
            Object::Dict(_) | Object::Storage(_) => WEIGHT,
        })?;
        self.pickle.objects.push(object);
        self.push(Value::Object(self.pickle.objects.len() - 1))
    }

    fn count(&mut self, more: usize) -> Result<(), Problem> {
        self.used = self.used.saturating_add(more);
        if self.used > ITEMS { Err(too_many()) } else { Ok(()) }
    }

    /// Where the values of the innermost mark begin, or the bottom.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value, Problem> {
        let values = self.stack.get(self.floor()..).unwrap_or_default();
        values.last().copied().ok_or_else(|| bad("a value is taken from an empty stack"))
    }

    fn pop(&mut self) -> Result<Value, Problem> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// POP, which takes a mark away too.
    fn drop_top(&mut self) -> Result<(), Problem> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, Problem> {
        if self.stack.len() - self.floor() < count {
            return Err(bad("a value is taken from an empty stack"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, Problem> {
        let from = self.marks.pop().ok_or_else(|| bad("there is no mark where one is needed"))?;
        Ok(self.stack.split_off(from))
    }

    fn top_object(&mut self) -> Result<&mut Object, Problem> {
        let top = self.top()?;
        let object = match top {
            Value::Object(number) => self.pickle.objects.get_mut(number),
            _ => None,
        };
        object.ok_or_else(|| bad("items are put into what is no list and no dictionary"))
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let span = self.take(N as u64)?;
        self.pickle.raw(span).try_into().map_err(|_| truncated())
    }

    fn take(&mut self, length: u64) -> Result<Span, Problem> {
        let rest = self.pickle.bytes.len() - self.at;
        let length = usize::try_from(length).ok().filter(|n| *n <= rest).ok_or_else(truncated)?;
        let span = Span { start: self.at, length };
        self.at += length;
        Ok(span)
    }

    /// Text up to the end of the line, which is passed.
    fn line(&mut self) -> Result<Span, Problem> {
        let rest = self.pickle.bytes.get(self.at..).unwrap_or_default();
        let longest = self.limits.name_bytes.min(rest.len());
        let length = rest[..longest].iter().position(|b| *b == b'\n');
        let Some(length) = length else {
            return Err(if longest < rest.len() { bad("the name of a global does not end") } else { truncated() });
        };
        let span = self.take(length as u64)?;
        self.byte()?;
        std::str::from_utf8(self.pickle.raw(span)).map_err(|_| bad("the name of a global is not UTF-8"))?;
        Ok(span)
    }
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new("bad-pickle", message)
}

fn too_many() -> Problem {
    Problem::new("too-many-objects", format!("the pickle makes more than {ITEMS} values, or {STACK} at a time"))
}

/// The pickle goes on after the bytes that are there.
fn truncated() -> Problem {
    Problem::new("truncated", "the file ends inside its pickle: it is truncated or half downloaded")
}

/// The pickle asks for something that would be code; `what` is named as the file names it.
pub fn code_problem(what: &str) -> Problem {
    let message = format!("the pickle asks for {}, which is code and not a tensor; nothing of it was run", short(what));
    let help = "do not load this file with a program that runs pickles; where you trust it, save its state dict alone: \
                torch.save(model.state_dict(), ...)";
    Problem::new("pickle-code", message).help(help)
}

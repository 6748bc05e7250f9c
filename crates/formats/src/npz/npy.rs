//! The header of one array: a Python literal that says type, order and shape.

use windlass_tensor::{DType, Element};

use crate::json::short;
use crate::{Problem, expected_bytes};

/// Longest header text; NumPy's own readers stop at 10,000.
const HEADER_BYTES: u64 = 65_535;

/// A checked array header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Npy {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Bytes before the values.
    pub data_start: u64,
    /// Bytes of the values.
    pub length: u64,
}

/// Bytes of the whole header, from the first 12 bytes of an array of `length` bytes.
pub fn header_length(head: &[u8], length: u64) -> Result<usize, Problem> {
    let truncated = || Problem::new("truncated", "the array ends inside its header");
    if head.get(..6) != Some(b"\x93NUMPY") {
        return Err(Problem::new("not-npy", "is not a NumPy array"));
    }
    let version = (*head.get(6).ok_or_else(truncated)?, *head.get(7).ok_or_else(truncated)?);
    let byte = |i: usize| head.get(i).map(|b| u64::from(*b)).ok_or_else(truncated);
    let (start, text) = match version {
        (1, 0) => (10, byte(8)? | byte(9)? << 8),
        (2 | 3, 0) => (12, byte(8)? | byte(9)? << 8 | byte(10)? << 16 | byte(11)? << 24),
        (major, minor) => {
            let message = format!("version {major}.{minor} of the array format is not known");
            return Err(Problem::new("unknown-version", message));
        }
    };
    if text > HEADER_BYTES {
        let message = format!("the array's header says it has {text} bytes, the limit is {HEADER_BYTES}");
        return Err(Problem::new("header-too-large", message));
    }
    let whole = start + text;
    if whole > length { Err(truncated()) } else { Ok(whole as usize) }
}

/// Parses the whole header of an array of `length` bytes.
pub fn parse(header: &[u8], length: u64) -> Result<Npy, Problem> {
    let data_start = header_length(header, length)?;
    let text_start = if header.get(6) == Some(&1) { 10 } else { 12 };
    let text = header.get(text_start..data_start);
    let text = text.ok_or_else(|| Problem::new("truncated", "the array ends inside its header"))?;
    let bad = |message: String| Problem::new("bad-header", message);
    let (descr, fortran, shape) = Literal { text, at: 0 }.header().map_err(bad)?;
    let dtype = dtype(&descr)?;
    if fortran && shape.iter().filter(|d| **d != 1).count() > 1 {
        let problem = Problem::new("fortran-order", "is stored column by column (Fortran order)");
        return Err(problem.help("save numpy.ascontiguousarray of it"));
    }
    let bytes = expected_bytes(&Element::Plain(dtype), &shape).map_err(|m| Problem::new("bad-shape", m))?;
    let found = length - data_start as u64;
    if bytes != [found] {
        let message = format!("{dtype} of shape {shape:?} has {} bytes, found {found}", bytes.iter().sum::<u64>());
        return Err(Problem::new("wrong-size", message));
    }
    Ok(Npy { dtype, shape, data_start: data_start as u64, length: found })
}

fn dtype(descr: &str) -> Result<DType, Problem> {
    let refuse = |message: String| Err(Problem::new("unknown-type", message));
    let kind = match descr.as_bytes().first() {
        Some(b'<' | b'|') => &descr[1..],
        Some(b'>') => return refuse(format!("values of type {descr:?} are big-endian, which is not supported")),
        _ => return refuse(format!("type {:?} does not say its byte order", short(descr))),
    };
    Ok(match (kind, descr.starts_with('|')) {
        ("b1" | "?", _) => DType::Bool,
        ("u1", _) => DType::U8,
        ("i1", _) => DType::I8,
        ("u2", false) => DType::U16,
        ("i2", false) => DType::I16,
        ("u4", false) => DType::U32,
        ("i4", false) => DType::I32,
        ("u8", false) => DType::U64,
        ("i8", false) => DType::I64,
        ("f2", false) => DType::F16,
        ("f4", false) => DType::F32,
        ("f8", false) => DType::F64,
        ("c8", false) => DType::C64,
        // NumPy has no bfloat16; this is how MLX, and only MLX, writes it.
        ("V2", false) => DType::BF16,
        ("O", _) => return refuse("holds Python objects, which would have to be executed to be read".into()),
        _ => return refuse(format!("values of type {:?} are not numbers that a model has", short(descr))),
    })
}

/// How NumPy spells a type; `None` for those it lacks. BF16 is spelled as MLX does.
pub fn descr(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "|b1",
        DType::U8 => "|u1",
        DType::I8 => "|i1",
        DType::U16 => "<u2",
        DType::I16 => "<i2",
        DType::U32 => "<u4",
        DType::I32 => "<i4",
        DType::U64 => "<u8",
        DType::I64 => "<i8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::C64 => "<c8",
        DType::BF16 => "<V2",
        _ => return None,
    })
}

/// The header of an array, version 1.0, padded as NumPy does so that the values are aligned.
pub fn write(dtype: DType, shape: &[usize]) -> Option<Vec<u8>> {
    let descr = descr(dtype)?;
    let dimensions: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", dimensions.join(", "));
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.push_str(&" ".repeat(padded - 1 - text.len()));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    header.extend(text.bytes());
    Some(header)
}

/// A strict reader of the one literal that array headers hold.
struct Literal<'a> {
    text: &'a [u8],
    at: usize,
}

impl Literal<'_> {
    /// Type, Fortran order and shape.
    fn header(mut self) -> Result<(String, bool, Vec<usize>), String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while self.peek() != Some(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let fresh = match key.as_str() {
                "descr" if self.peek() == Some(b'[') => return Err("has named fields, which no model has".into()),
                "descr" => descr.replace(self.string()?).is_none(),
                "fortran_order" => fortran.replace(self.boolean()?).is_none(),
                "shape" => shape.replace(self.tuple()?).is_none(),
                other => return Err(format!("unknown key {:?} in the array's header", short(other))),
            };
            if !fresh {
                return Err(format!("the key {key:?} comes twice in the array's header"));
            }
            if self.peek() != Some(b'}') {
                self.expect(b',')?;
            }
        }
        self.expect(b'}')?;
        if self.peek().is_some() {
            return Err("something follows the literal in the array's header".into());
        }
        let missing = || "the array's header lacks descr, fortran_order or shape".to_string();
        Ok((descr.ok_or_else(missing)?, fortran.ok_or_else(missing)?, shape.ok_or_else(missing)?))
    }

    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(format!("expected {:?} at byte {} of the array's header", char::from(byte), self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.peek().filter(|b| matches!(b, b'\'' | b'"'));
        let quote = quote.ok_or_else(|| format!("expected a string at byte {} of the array's header", self.at))?;
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let body: Vec<u8> = rest.iter().take_while(|b| **b != quote).copied().collect();
        if body.len() == rest.len() || body.iter().any(|b| !b.is_ascii_graphic() || *b == b'\\') {
            return Err("a string of the array's header does not end, or holds more than plain text".into());
        }
        self.at += body.len() + 2;
        String::from_utf8(body).map_err(|e| e.to_string())
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = [(&b"True"[..], true), (b"False", false)].into_iter().find(|(word, _)| rest.starts_with(word));
        let (word, value) = found.ok_or("fortran_order is neither True nor False")?;
        self.at += word.len();
        Ok(value)
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let (mut shape, mut comma) = (Vec::new(), false);
        self.expect(b'(')?;
        while self.peek() != Some(b')') {
            if shape.len() == 64 {
                return Err("a shape has more than 64 dimensions".into());
            }
            shape.push(self.number()?);
            comma = self.peek() == Some(b',');
            if !comma {
                break;
            }
            self.at += 1;
        }
        self.expect(b')')?;
        if shape.len() == 1 && !comma {
            return Err("the shape is a number, not a tuple".into());
        }
        Ok(shape)
    }

    fn number(&mut self) -> Result<usize, String> {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let digits: String = rest.iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
        let number = digits.parse().map_err(|_| format!("expected a dimension at byte {}", self.at))?;
        self.at += digits.len();
        // Python 2 wrote its long integers so.
        if self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        Ok(number)
    }
}

//! GGUF files built by hand, byte by byte: what no honest writer would write.

/// Bytes of a file, and what its header announces.
#[derive(Clone)]
pub struct Builder {
    version: u32,
    keys: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
    alignment: usize,
    announced: [Option<u64>; 2],
}

/// Tags of values.
pub const U8: u32 = 0;
pub const U16: u32 = 2;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

impl Builder {
    pub fn new(version: u32) -> Self {
        let (keys, infos, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { version, keys, infos, data, alignment: 32, announced: [None; 2] }
    }

    /// A length or count in the width of the version.
    pub fn count(&self, n: u64) -> Vec<u8> {
        if self.version == 1 { (n as u32).to_le_bytes().to_vec() } else { n.to_le_bytes().to_vec() }
    }

    pub fn string(&self, text: &[u8]) -> Vec<u8> {
        [self.count(text.len() as u64), text.to_vec()].concat()
    }

    /// An array's tag, announced count and bytes.
    pub fn array(&self, tag: u32, count: u64, items: &[u8]) -> Vec<u8> {
        [tag.to_le_bytes().to_vec(), self.count(count), items.to_vec()].concat()
    }

    pub fn key(self, name: &str, tag: u32, value: &[u8]) -> Self {
        let name = self.string(name.as_bytes());
        self.raw_key([name, tag.to_le_bytes().to_vec(), value.to_vec()].concat())
    }

    /// Appends these bytes as a key.
    pub fn raw_key(mut self, bytes: Vec<u8>) -> Self {
        self.keys.push(bytes);
        self
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        let value = self.string(value.as_bytes());
        self.key(name, STRING, &value)
    }

    /// `dims` innermost first, as stored.
    pub fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let name = self.string(name.as_bytes());
        self.raw_tensor(name, dims.len() as u32, dims, type_id, offset)
    }

    pub fn raw_tensor(mut self, name: Vec<u8>, n_dims: u32, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut info = [name, n_dims.to_le_bytes().to_vec()].concat();
        dims.iter().for_each(|d| info.extend(self.count(*d)));
        info.extend(type_id.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
        self
    }

    /// Appends zero bytes to the data.
    pub fn data(mut self, bytes: usize) -> Self {
        self.data.resize(self.data.len() + bytes, 0);
        self
    }

    /// Where the data begins: at a multiple of this.
    pub fn alignment(mut self, alignment: usize) -> Self {
        self.alignment = alignment;
        self
    }

    /// Announces other numbers of tensors and keys than there are.
    pub fn announce(mut self, tensors: Option<u64>, keys: Option<u64>) -> Self {
        self.announced = [tensors, keys];
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.count(self.announced[0].unwrap_or(self.infos.len() as u64)));
        out.extend(self.count(self.announced[1].unwrap_or(self.keys.len() as u64)));
        self.keys.iter().chain(&self.infos).for_each(|bytes| out.extend(bytes));
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&self.data);
        }
        out
    }
}

/// A small valid file with keys of several kinds and three tensors.
pub fn valid(version: u32) -> Builder {
    let b = Builder::new(version);
    let tokens = b.array(STRING, 3, &[b.string(b"a"), b.string(b"bc"), b.string("é".as_bytes())].concat());
    let nested = b.array(ARRAY, 2, &[b.array(U8, 2, &[1, 2]), b.array(U8, 0, &[])].concat());
    b.text("general.architecture", "llama")
        .key("llama.block_count", U32, &1u32.to_le_bytes())
        .key("flag", BOOL, &[1])
        .key("tokenizer.ggml.tokens", ARRAY, &tokens)
        .key("nested", ARRAY, &nested)
        .tensor("first", &[3, 2], 0, 0)
        .tensor("second", &[4], 1, 32)
        .tensor("third", &[2, 2, 2], 24, 64)
        .data(96)
}

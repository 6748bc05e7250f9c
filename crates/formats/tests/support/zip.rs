//! Zips whose records can be lied about.

/// Where the records of an archive are, to be lied about.
pub struct Archive {
    pub bytes: Vec<u8>,
    pub locals: Vec<usize>,
    pub centrals: Vec<usize>,
    pub end: usize,
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |c, b| {
        (0..8).fold(c ^ u32::from(*b), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

impl Archive {
    /// Stored members, their sizes in their own headers.
    pub fn new(members: &[(&str, Vec<u8>)]) -> Archive {
        let mut archive = Archive { bytes: Vec::new(), locals: Vec::new(), centrals: Vec::new(), end: 0 };
        for (name, data) in members {
            archive.locals.push(archive.bytes.len());
            archive.bytes.extend(0x0403_4b50u32.to_le_bytes());
            archive.bytes.extend([20, 0]);
            archive.common(name, data);
            archive.bytes.extend(name.bytes());
            archive.bytes.extend(data);
        }
        let start = archive.bytes.len();
        for ((name, data), local) in members.iter().zip(archive.locals.clone()) {
            archive.centrals.push(archive.bytes.len());
            archive.bytes.extend(0x0201_4b50u32.to_le_bytes());
            archive.bytes.extend([20, 0, 20, 0]);
            archive.common(name, data);
            archive.bytes.extend([0; 10]);
            archive.bytes.extend((local as u32).to_le_bytes());
            archive.bytes.extend(name.bytes());
        }
        archive.end = archive.bytes.len();
        let count = (members.len() as u16).to_le_bytes();
        archive.bytes.extend(0x0605_4b50u32.to_le_bytes());
        archive.bytes.extend([[0; 2], [0; 2], count, count].concat());
        archive.bytes.extend(((archive.end - start) as u32).to_le_bytes());
        archive.bytes.extend((start as u32).to_le_bytes());
        archive.bytes.extend([0, 0]);
        archive
    }

    /// Flags to length of the extra field, the same in both headers.
    fn common(&mut self, name: &str, data: &[u8]) {
        self.bytes.extend([0; 8]);
        self.bytes.extend(crc32(data).to_le_bytes());
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend([0, 0]);
    }

    /// Replaces bytes.
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Archive {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A field of the central header of a member.
    pub fn central(self, member: usize, field: usize, bytes: &[u8]) -> Archive {
        let at = self.centrals[member] + field;
        self.put(at, bytes)
    }

    /// A field of a member's own header.
    pub fn local(self, member: usize, field: usize, bytes: &[u8]) -> Archive {
        let at = self.locals[member] + field;
        self.put(at, bytes)
    }

    /// A field of the end record.
    pub fn last(self, field: usize, bytes: &[u8]) -> Archive {
        let at = self.end + field;
        self.put(at, bytes)
    }

    /// The 64-bit end record and its locator, put before the end record.
    pub fn wide(mut self, entries: u64, length: u64, offset: u64, place: u64) -> Archive {
        let mut record = 0x0606_4b50u32.to_le_bytes().to_vec();
        record.extend(44u64.to_le_bytes());
        record.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        record.extend([entries, entries, length, offset].map(u64::to_le_bytes).concat());
        record.extend(0x0706_4b50u32.to_le_bytes());
        record.extend([0; 4]);
        record.extend(place.to_le_bytes());
        record.extend([1, 0, 0, 0]);
        let end = self.end;
        self.bytes.splice(end..end, record.iter().copied());
        self.end += record.len();
        self
    }
}

//! Pages of a column: headers are bounded, then bytes are read, then unpacked, and only then decoded.

use std::io::{Read, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

use super::thrift::{Fields, Walk, Wrong};
use crate::data::containers::Input;

/// The longest header of a page; statistics hold whole values of old writers.
const HEADER_BYTES: usize = 4 << 20;
/// Values of pages that were read since a row was given.
const VALUES: u64 = 16 << 20;

/// What the columns of a file share.
pub struct Shared {
    pub input: Mutex<Box<dyn Input>>,
    /// Values of pages that were read since a row was given.
    pub served: AtomicU64,
    /// Bytes that a page may have when it is unpacked.
    pub page_bytes: usize,
}

impl Shared {
    /// Reads up to `count` bytes at `offset`; fewer only at the end.
    fn read(&self, offset: u64, count: usize) -> std::io::Result<Vec<u8>> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        (&mut **input).take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The pages of one column of one group of rows.
pub struct Pages {
    pub shared: Arc<Shared>,
    pub compression: Compression,
    pub physical: Type,
    /// Where the next page begins and the last one ends.
    pub at: u64,
    pub end: u64,
    /// Values that were not read yet.
    pub left: u64,
}

fn wrong<T>(message: impl Into<String>) -> Result<T> {
    Err(ParquetError::General(message.into()))
}

impl Pages {
    fn header(&self) -> Result<(Fields, u64)> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(HEADER_BYTES);
        let mut count = 4096;
        loop {
            let bytes = self.shared.read(self.at, count.min(most))?;
            let mut walk = Walk { bytes: &bytes, at: 0 };
            match walk.fields() {
                Ok(fields) => return Ok((fields, walk.at as u64)),
                Err(Wrong::Short) if count < most => count *= 16,
                Err(Wrong::Short) => return wrong("the header of a page is cut or too long"),
                Err(Wrong::Bad(message)) => return wrong(format!("the header of a page is damaged: {message}")),
            }
        }
    }

    fn page(&mut self) -> Result<Option<Page>> {
        while self.left > 0 && self.at < self.end {
            let (header, length) = self.header()?;
            let size = |id: i16| header.int(id).and_then(|v| usize::try_from(v).ok());
            let (Some(unpacked), Some(packed)) = (size(2), size(3)) else {
                return wrong("a page does not say how large it is");
            };
            let start = self.at + length;
            if unpacked > self.shared.page_bytes || packed > self.shared.page_bytes {
                let most = self.shared.page_bytes;
                return wrong(format!("a page of {} bytes is more than the limit of {most}", unpacked.max(packed)));
            }
            if packed as u64 > self.end.saturating_sub(start) {
                return wrong(format!("a page of {packed} bytes is longer than its column"));
            }
            self.at = start + packed as u64;
            let bytes = self.shared.read(start, packed)?;
            if bytes.len() != packed {
                return wrong("the file ends inside of a page");
            }
            match header.int(1) {
                Some(0) => return self.data(&header, bytes, unpacked).map(Some),
                Some(2) => return self.dictionary(&header, bytes, unpacked).map(Some),
                Some(3) => return self.data_v2(&header, bytes, unpacked).map(Some),
                // An index says nothing about values.
                _ => {}
            }
        }
        Ok(None)
    }

    fn data(&mut self, header: &Fields, bytes: Vec<u8>, unpacked: usize) -> Result<Page> {
        let Some(of) = header.fields(5) else { return wrong("a page lacks its own header") };
        let page = Page::DataPage {
            num_values: self.count(of.int(1))?,
            encoding: encoding(of.int(2))?,
            def_level_encoding: level_encoding(of.int(3))?,
            rep_level_encoding: level_encoding(of.int(4))?,
            statistics: None,
            buf: self.unpack(&bytes, unpacked)?.into(),
        };
        Ok(page)
    }

    fn data_v2(&mut self, header: &Fields, bytes: Vec<u8>, unpacked: usize) -> Result<Page> {
        let Some(of) = header.fields(8) else { return wrong("a page lacks its own header") };
        let small = |id: i16| of.int(id).and_then(|v| u32::try_from(v).ok());
        let (Some(nulls), Some(rows), Some(definitions), Some(repetitions)) = (small(2), small(3), small(5), small(6))
        else {
            return wrong("the header of a page lacks a number");
        };
        let levels = definitions as usize + repetitions as usize;
        if levels > bytes.len() || levels > unpacked {
            return wrong("the levels of a page are longer than the page");
        }
        let num_values = self.count(of.int(1))?;
        let mut buf = bytes[..levels].to_vec();
        match of.int(7) {
            Some(0) => buf.extend(&bytes[levels..]),
            _ => buf.extend(self.unpack(&bytes[levels..], unpacked - levels)?),
        }
        Ok(Page::DataPageV2 {
            buf: buf.into(),
            num_values,
            encoding: encoding(of.int(4))?,
            num_nulls: nulls,
            num_rows: rows,
            def_levels_byte_len: definitions,
            rep_levels_byte_len: repetitions,
            is_compressed: false,
            statistics: None,
        })
    }

    fn dictionary(&mut self, header: &Fields, bytes: Vec<u8>, unpacked: usize) -> Result<Page> {
        let Some(of) = header.fields(7) else { return wrong("a dictionary lacks its own header") };
        let Some(count) = of.int(1).and_then(|v| u32::try_from(v).ok()) else {
            return wrong("a dictionary does not say how many values it has");
        };
        let each = match self.physical {
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            _ => return wrong("a dictionary of values that have none"),
        };
        if count as u64 * each > unpacked as u64 {
            return wrong(format!("a dictionary of {count} values has {unpacked} bytes"));
        }
        let buf = self.unpack(&bytes, unpacked)?.into();
        Ok(Page::DictionaryPage { buf, num_values: count, encoding: encoding(of.int(2))?, is_sorted: false })
    }

    /// Values of a page, which are counted.
    fn count(&mut self, found: Option<i64>) -> Result<u32> {
        let Some(count) = found.and_then(|v| u32::try_from(v).ok()).filter(|v| u64::from(*v) <= self.left) else {
            return wrong("a page has more values than its column");
        };
        self.left -= u64::from(count);
        if self.shared.served.fetch_add(count.into(), Ordering::Relaxed) + u64::from(count) > VALUES {
            return wrong(format!("a row, or a page, has more than {VALUES} values"));
        }
        Ok(count)
    }

    fn unpack(&self, bytes: &[u8], size: usize) -> Result<Vec<u8>> {
        let unpacked = match self.compression {
            Compression::UNCOMPRESSED => bytes.to_vec(),
            // The size is known, and is not what the bytes say of themselves.
            _ if size == 0 => Vec::new(),
            Compression::SNAPPY => {
                if snap::raw::decompress_len(bytes).ok() != Some(size) {
                    return wrong("a page is not as large as its header says");
                }
                snap::raw::Decoder::new().decompress_vec(bytes).map_err(|e| ParquetError::General(e.to_string()))?
            }
            Compression::ZSTD(_) => unzstd(bytes, size)?,
            Compression::LZ4_RAW => {
                lz4_flex::block::decompress(bytes, size).map_err(|e| ParquetError::General(e.to_string()))?
            }
            other => {
                return wrong(format!("is compressed with {other}: save it with snappy, zstd or no compression"));
            }
        };
        if unpacked.len() != size { wrong("a page is not as large as its header says") } else { Ok(unpacked) }
    }
}

fn unzstd(bytes: &[u8], size: usize) -> Result<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
    let mut decoder = decoder.map_err(|e| ParquetError::General(e.to_string()))?;
    let mut unpacked = Vec::new();
    (&mut decoder).take(size as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

/// The encodings that the library decodes without believing a count in the data.
fn encoding(number: Option<i64>) -> Result<Encoding> {
    Ok(match number {
        Some(0) => Encoding::PLAIN,
        Some(2) => Encoding::PLAIN_DICTIONARY,
        Some(3) => Encoding::RLE,
        Some(8) => Encoding::RLE_DICTIONARY,
        Some(number @ (5 | 6 | 7 | 9)) => {
            let name = ["DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "", "BYTE_STREAM_SPLIT"];
            let name = name[number as usize - 5];
            return wrong(format!(
                "values are encoded with {name}, which is not read: save it with plain or dictionary"
            ));
        }
        _ => return wrong("values are encoded in a way that does not exist"),
    })
}

fn level_encoding(number: Option<i64>) -> Result<Encoding> {
    match number {
        Some(3) => Ok(Encoding::RLE),
        _ => wrong("levels are encoded in a way that is not read"),
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.page()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        wrong("pages are read in order")
    }

    fn skip_next_page(&mut self) -> Result<()> {
        wrong("pages are read in order")
    }

    /// A page of the second version begins with a row.
    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(self.left == 0 || self.at >= self.end || self.header()?.0.int(1) == Some(3))
    }
}

//! Peak memory does not grow with the model: alone in its process, so that the system's figure is this test's own.
#![allow(clippy::unwrap_used)]

use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use windlass::convert::{Conversion, Options, Watch};

#[test]
fn one_tensor_larger_than_the_limit_is_converted_within_it() {
    const LIMIT: u64 = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("large.safetensors");
    // 200 MiB in one tensor: 3 times the limit. A hole in the file reads as zeros.
    let (rows, columns) = (102_400, 1024);
    let bytes = rows * columns * 2;
    let header = format!(r#"{{"large":{{"dtype":"BF16","shape":[{rows},{columns}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = std::fs::File::create(&source).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let end = file.seek(SeekFrom::Current(bytes as i64)).unwrap();
    file.set_len(end).unwrap();
    let options = Options { scheme: Some("q4_0".into()), pure: true, memory_limit: LIMIT, ..Options::default() };
    let conversion = Conversion::plan(&source, &folder.path().join("large.gguf"), options).unwrap();
    let planned = conversion.describe().peak_memory_bytes;
    let stop = AtomicBool::new(false);
    let report = conversion.run(&Watch { stop: &stop, progress: &|_, _| {} }).unwrap();
    assert!(report.peak_memory_bytes > 0 || !cfg!(target_os = "linux"));
    assert!(report.peak_memory_bytes <= LIMIT, "{} bytes", report.peak_memory_bytes);
    assert!(report.peak_memory_bytes <= planned, "the plan promised {planned}, it took {}", report.peak_memory_bytes);
}

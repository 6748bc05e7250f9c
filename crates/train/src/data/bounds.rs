//! How much a file of rows may ask for, beside `windlass_tensor::Limits`.

/// Bytes of one row.
pub const ROW_BYTES: usize = 64 << 20;
/// Values of one row, tokens not counted.
pub const VALUES: usize = 1 << 20;
/// Columns of a table.
pub const COLUMNS: usize = 4096;
/// Bytes that are looked at to find out what a file is.
pub const HEAD_BYTES: usize = 1 << 16;

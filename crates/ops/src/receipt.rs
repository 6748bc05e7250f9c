//! Receipts: what really ran, where, how long, how many bytes moved.

use std::sync::Mutex;
use std::time::Duration;

/// The record of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub op: &'static str,
    pub provider: &'static str,
    pub device: String,
    /// Of the largest input, which routes go by.
    pub dtype: String,
    /// Values of the first output.
    pub values: usize,
    /// Bytes of all inputs and outputs.
    pub bytes: u64,
    pub elapsed: Duration,
    /// Where the route came from: `built-in`, a file and line, `environment`, `call`.
    pub source: String,
    /// Why the preferred provider did not run, if it did not.
    pub fallback: Option<String>,
}

/// Collects receipts; shared by threads.
#[derive(Debug, Default)]
pub struct Recorder {
    receipts: Mutex<Vec<Receipt>>,
}

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was collected so far.
    pub fn take(&self) -> Vec<Receipt> {
        std::mem::take(&mut *self.receipts.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(crate) fn add(&self, receipt: Receipt) {
        self.receipts.lock().unwrap_or_else(|e| e.into_inner()).push(receipt);
    }
}

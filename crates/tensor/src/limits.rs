//! How much a file may ask for. One struct for every reader and every face.

/// Upper bounds that readers apply before they allocate. The defaults hold every model known today with room to spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a container's header (names, shapes, metadata). safetensors' own cap is 100,000,000.
    pub header_bytes: u64,
    /// Number of tensors in one model.
    pub tensors: u64,
    /// Number of metadata keys.
    pub metadata_keys: u64,
    /// Bytes of one string (a name, a chat template, a vocabulary item).
    pub string_bytes: u64,
    /// Items of one metadata array.
    pub array_items: u64,
    /// Depth of arrays within arrays and of JSON.
    pub nesting: usize,
    /// Bytes of one tensor or metadata name.
    pub name_bytes: usize,
    /// Number of dimensions of one tensor.
    pub dimensions: usize,
    /// Largest alignment of tensor data; a power of two.
    pub alignment: u64,
    /// Bytes of all tensors together.
    pub total_bytes: u64,
    /// Number of files of one model.
    pub parts: usize,
    /// Bytes of one side file (config.json, tokenizer.json).
    pub side_file_bytes: u64,
    /// Steps a chat template may run.
    pub template_fuel: u64,
    /// Bytes a chat template may write.
    pub template_output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 100_000_000,
            tensors: 1_000_000,
            metadata_keys: 100_000,
            string_bytes: 64 << 20,
            array_items: 16_000_000,
            nesting: 64,
            name_bytes: 1024,
            dimensions: 8,
            alignment: 1 << 20,
            total_bytes: 64 << 40,
            parts: 10_000,
            side_file_bytes: 512 << 20,
            template_fuel: 10_000_000,
            template_output_bytes: 64 << 20,
        }
    }
}

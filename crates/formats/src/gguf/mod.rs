//! GGUF: one file, or several numbered ones, with keys, tensors and vocabulary together.

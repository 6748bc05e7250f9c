//! Tokenizers and chat templates, from tokenizer.json and from GGUF.

//! SafeTensors: one file, or a Hugging Face folder with an index and parts.

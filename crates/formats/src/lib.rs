//! Containers of model weights: detect, read lazily, validate, write.

//! Model architectures as data: hyper-parameters, tensors and names.

/// Whose names and layout a model's tensors follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convention {
    Hf,
    Gguf,
    Mlx,
}

//! Model architectures as data: hyper-parameters, tensors and names.

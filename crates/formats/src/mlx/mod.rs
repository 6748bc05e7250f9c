//! MLX folders: safetensors with packed weights described by config.json.

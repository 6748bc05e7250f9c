"""Cut the small golden files of this folder out of the full scheme vectors.

    python make.py VECTORS.safetensors f32|bf16

The vectors hold one 8 x 512 matrix (`input`), column weights (`importance`), and for each scheme of each library its packed parts and its
decoded values: GGML packed by llama.cpp's ggml_quantize_chunk and decoded by gguf-py, MLX packed and decoded by mlx.core. Kept here are

- all packed parts, whole (`ggml-q4_0.packed`; `ggml-q4_0+imatrix.packed` with the importance; `mlx-affine4-g64.scales`);
- of decoded values the first 4 rows; GGML's only for the f32 input without importance, MLX's in the type of the input.
"""
import json, pathlib, struct, sys

ROWS = 4


def load(path):
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size :]
    return {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in header.items()}


def save(path, tensors):
    header, offset = {}, 0
    for k, (dtype, shape, data) in sorted(tensors.items()):
        header[k] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for _, t in sorted(tensors.items())))


def first_rows(dtype, shape, data, narrow):
    values = data[: ROWS * shape[1] * 4]
    if narrow:                                                        # exact: mlx computed these in bfloat16
        assert all(values[i : i + 2] == b"\0\0" for i in range(0, len(values), 4))
        dtype, values = "BF16", b"".join(values[i + 2 : i + 4] for i in range(0, len(values), 4))
    return dtype, [ROWS, shape[1]], values


source, name = sys.argv[1:]
vectors = load(source)
for family in ("ggml", "mlx"):
    out = {k: vectors[k] for k in ("input", "importance")}
    for k, v in vectors.items():
        if not k.startswith(family + "-") or k.startswith(("ggml-f16", "ggml-bf16")):
            continue
        if not k.endswith(".decoded"):
            out[k] = v
        elif family == "mlx" or (name == "f32" and "+imatrix" not in k):
            out[k] = first_rows(*v, narrow=family == "mlx" and name == "bf16")
    save(pathlib.Path(__file__).parent / f"{family}-{name}.safetensors", out)

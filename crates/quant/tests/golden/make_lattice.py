"""Pack matrices on the edges of IQ1, IQ2 and IQ3 with llama.cpp, through llama-cpp-python.

    python make_lattice.py

Writes `lattice.safetensors` beside this file: `input` (bfloat16), `importance`, and for each type `<name>.packed` where it works without
importance and `<name>+imatrix.packed`. Rows: normal and heavy-tailed values, outliers, runs of zeros, one sign, constants, few levels, tiny
and huge magnitudes, and magnitudes that differ from group to group. Importance spans six decades.
"""
import ctypes, pathlib
import gguf, llama_cpp
import numpy as np
import torch
from safetensors.torch import save_file

COLUMNS = 768
NEEDY = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
rng = np.random.default_rng(11)
normal = lambda: rng.standard_normal(COLUMNS)
group = lambda size: np.repeat(np.arange(COLUMNS // size), size)
mixed = normal()
mixed[64:96] = mixed[300:340] = mixed[512:] = 0
flipped = normal() * 1e-3
flipped[::37] = -5
rows = [
    normal(),
    normal() * 0.02,
    rng.standard_t(2, COLUMNS),
    np.where(rng.random(COLUMNS) < 0.02, 40, 1) * normal(),
    mixed,
    np.abs(normal()),
    -np.abs(normal()) - 0.5,
    np.full(COLUMNS, -0.75),
    np.sign(normal()),
    rng.integers(-3, 4, COLUMNS) / 4,
    np.where(np.arange(COLUMNS) % 16 == 5, normal(), 0),
    normal() * 1e-9,
    normal() * 10.0 ** (-group(32).astype(float)),
    normal() * 1e-23,
    normal() * 1e12,
    normal() * 2.0 ** rng.integers(-12, 12, COLUMNS // 16)[group(16)],
    flipped,
    np.zeros(COLUMNS),
]
x = torch.tensor(np.stack(rows), dtype=torch.bfloat16)
values = np.ascontiguousarray(x.float().numpy())
importance = (10.0 ** rng.uniform(-4, 2, COLUMNS)).astype(np.float32)
out = {"input": x, "importance": torch.from_numpy(importance)}
lib = llama_cpp.llama_cpp._lib
lib.ggml_quantize_chunk.restype = ctypes.c_size_t
lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    for suffix, weights in (("", None), ("+imatrix", importance.ctypes.data)):
        if weights is None and name in NEEDY:
            continue
        packed = np.zeros((len(rows), COLUMNS // block * size), dtype=np.uint8)
        done = lib.ggml_quantize_chunk(int(kind), values.ctypes.data, packed.ctypes.data, 0, len(rows), COLUMNS, weights)
        assert done == packed.nbytes
        out[f"{name.lower()}{suffix}.packed"] = torch.from_numpy(packed)
save_file(out, pathlib.Path(__file__).with_name("lattice.safetensors"))

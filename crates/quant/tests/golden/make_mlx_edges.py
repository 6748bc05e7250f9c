"""Pack matrices that sit on the edges of rounding with mlx.core, for each float type.

    python make_mlx_edges.py [ROWS]

Writes `mlx-edges-{f32,f16,bf16}.safetensors` beside this file: `input`, and for each scheme `<name>.packed`, `.scales`, `.biases` and
`.decoded`, the last in the type of the input. Rows: tiny and huge magnitudes, one-sided values, ties between codes, values whose quotient
by the largest code lies at the middle of two powers of two, constants, zeros.
"""
import pathlib, sys
import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
COLUMNS = 128
rows = int(sys.argv[1]) if len(sys.argv) > 1 else 14
rng = np.random.default_rng(7)


def row(i):
    normal = rng.standard_normal(COLUMNS)
    group = np.repeat(np.arange(COLUMNS // 32), 32)
    kind = i % 14
    if kind < 4:
        return normal * 2.0 ** rng.integers(-24, 13)
    if kind == 4:
        return np.abs(normal)
    if kind == 5:
        return -np.abs(normal) - 3
    if kind == 6:
        return np.full(COLUMNS, normal[0])
    if kind == 7:
        return np.where(np.arange(COLUMNS) % 5 == 0, normal * 1e-3, 0)
    if kind == 8:                                                     # multiples of a quarter: ties for the four-bit floats
        return np.clip(rng.integers(-24, 25, COLUMNS) / 4, -6, 6) * 2.0 ** (group - 2)
    if kind == 9:                                                     # multiples of one sixteenth: ties for the integers
        return rng.integers(-16, 17, COLUMNS) / 16
    top = {10: 6, 11: 448, 12: 6, 13: 448}[kind]                      # the logarithm of the scale next to a half
    values = normal * 0.1 * top
    scale = top * 2.0 ** (rng.integers(-12, 4, COLUMNS // 32) + 0.5) / top
    values = values * scale[group] / 4
    values[::32] = top * scale * (1 + rng.integers(-3, 4, COLUMNS // 32) * 2.0 ** rng.choice([-23, -10, -7]))
    return values


for name, dtype in [("f32", mx.float32), ("f16", mx.float16), ("bf16", mx.bfloat16)]:
    limit = 6e4 if name == "f16" else 1e30
    x = mx.array(np.clip(np.stack([row(i) for i in range(rows)]), -limit, limit).astype(np.float32)).astype(dtype)
    out = {"input": x}
    for mode, bits, group in [("affine", b, g) for b in (2, 3, 4, 5, 6, 8) for g in ((32, 64, 128) if b == 4 else (32,))] + [
        ("mxfp4", 4, 32),
        ("mxfp8", 8, 32),
        ("nvfp4", 4, 16),
    ]:
        scheme = f"mlx{bits}-g{group}" if mode == "affine" else f"mlx-{mode}"
        parts = mx.quantize(x, group_size=group, bits=bits, mode=mode)
        out |= {f"{scheme}.{part}": p for part, p in zip(("packed", "scales", "biases"), parts)}
        out[f"{scheme}.decoded"] = mx.dequantize(*parts, group_size=group, bits=bits, mode=mode, dtype=dtype)
    mx.save_safetensors(str(pathlib.Path(__file__).parent / f"mlx-edges-{name}.safetensors"), out)

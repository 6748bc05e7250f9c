"""Write the lattices of GGML's IQ types, as gguf-py has them: one byte per coordinate, points of 8 or 4.

    python make.py
"""
import pathlib

import gguf.quants as q
import numpy as np

for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"):
    scheme = getattr(q, name)
    scheme.init_grid()
    grid = np.asarray(scheme.grid).reshape(scheme.grid_shape)
    assert (grid == np.trunc(grid)).all()
    path = pathlib.Path(__file__).parent / f"{name.lower()}.bin"
    path.write_bytes(grid.astype(np.int8).tobytes())
    print(path.name, grid.shape)

"""What the papers' formulas give for small tensors, stated in numpy in double precision.

    python make_models.py      (needs numpy, safetensors)
"""
import pathlib

import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent / "models.safetensors"
SEED, TENSOR, SHAPE = 42, "blk.0.attn_q.weight", (7, 33)
WEIGHTS = np.array([0.5, 0.3, 0.9])
DENSITIES = np.array([0.2, 0.5, 0.7])
LAMBDA = 0.8


def philox(seed, counter):
    """Philox 4x32 with 10 rounds (Salmon et al. 2011)."""
    x = [counter >> 32 * i & 0xffffffff for i in range(4)]
    key = [seed & 0xffffffff, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [b >> 32 ^ x[1] ^ key[0], b & 0xffffffff, a >> 32 ^ x[3] ^ key[1], a & 0xffffffff]
        key = [key[0] + 0x9E3779B9 & 0xffffffff, key[1] + 0xBB67AE85 & 0xffffffff]
    return x


def kept(model, count, density):
    """Value n is kept where word n of the sequence of the tensor's name and the model is below density * 2^32."""
    sequence = 0xcbf29ce484222325
    for byte in TENSOR.encode() + model.to_bytes(4, "little"):
        sequence = (sequence ^ byte) * 0x100000001b3 % 2**64
    words = [w for n in range(-(-count // 4)) for w in philox(SEED, (sequence << 64) + n)]
    return np.array(words[:count]) < round(density * 2**32)


def trim(change, density):
    """The largest `density` of the changes (Yadav et al. 2023, 3.1)."""
    k = max(1, int(density * change.size))
    threshold = np.sort(np.abs(change).ravel())[-k]
    return np.where(np.abs(change) >= threshold, change, 0)


def drop(change, density, model):
    """Changes dropped at random, the others rescaled (Yu et al. 2023, 3.2)."""
    return np.where(kept(model, change.size, density).reshape(change.shape), change / density, 0)


def elect(changes, normalize):
    """Signs elected by mass, and the mean of those that agree (Yadav et al. 2023, 3.2 and 3.3)."""
    weighted = changes * WEIGHTS[:, None, None]
    sign = np.where(weighted.sum(0) >= 0, 1, -1)
    agree = np.sign(weighted) == sign
    total = (weighted * agree).sum(0)
    weight = (WEIGHTS[:, None, None] * agree).sum(0)
    return total / np.where(weight == 0, 1, weight) if normalize else total


def slerp(a, b, t):
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def main():
    random = np.random.default_rng(1)
    base = random.standard_normal(SHAPE).astype(np.float32)
    models = [(base + 0.1 * random.standard_normal(SHAPE)).astype(np.float32) for _ in range(3)]
    far = random.standard_normal(SHAPE).astype(np.float32)
    # As floats subtract: the magnitudes that trimming orders.
    changes = np.stack([m - base for m in models]).astype(np.float64)
    trimmed = np.stack([trim(c, d) for c, d in zip(changes, DENSITIES)])
    dropped = np.stack([drop(c, d, i) for i, (c, d) in enumerate(zip(changes, DENSITIES))])
    weights = WEIGHTS[:, None, None]
    wide, stack = base.astype(np.float64), np.stack(models).astype(np.float64)
    results = {
        "linear": (stack * weights).sum(0) / WEIGHTS.sum(),
        "linear-sum": (stack * weights).sum(0),
        "slerp": slerp(wide, far.astype(np.float64), 0.3),
        "slerp-near": 0.7 * wide + 0.3 * (wide * 1.01),
        "task": wide + LAMBDA * (changes * weights).sum(0),
        "ties": wide + LAMBDA * elect(trimmed, True),
        "ties-sum": wide + LAMBDA * elect(trimmed, False),
        "dare": wide + LAMBDA * (dropped * weights).sum(0),
        "dare-ties": wide + LAMBDA * elect(dropped, False),
    }
    tensors = {"base": base, "far": far, "near": (wide * 1.01).astype(np.float32)} | {f"model-{i}": m for i, m in enumerate(models)}
    save_file(tensors | {k: v for k, v in results.items()}, OUT)


if __name__ == "__main__":
    main()

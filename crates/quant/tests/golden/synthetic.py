"""What the scripts of this folder share: a matrix that the tests compute alike, and a hash of decoded values."""
import numpy as np
import torch


def synthetic(rows, columns):
    """Numbers of 24 bits times one of four powers of two, from a hash of the position; some stretches are zero or constant."""
    i = np.arange(rows * columns)
    with np.errstate(over="ignore"):
        h = i.astype(np.uint64) + np.uint64(1)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
    numbers = ((h >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32)
    v = numbers * np.exp2(-23.0 - (h & np.uint64(3)).astype(np.float32)).astype(np.float32)
    v = np.where(i // 128 % 7 == 2, np.float32(0), v)
    v = np.where(i // 128 % 11 == 4, np.float32(0.75), v)
    return torch.from_numpy(v.reshape(rows, columns).astype(np.float32))


def fnv(tensor):
    """FNV-1a of the bytes of a tensor, as an int64."""
    value = 0xCBF29CE484222325
    for byte in tensor.contiguous().view(-1).view(torch.uint8).tolist():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return torch.tensor([value - 2**64 if value >= 2**63 else value])

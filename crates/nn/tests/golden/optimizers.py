"""Parameters after steps of torch's and bitsandbytes' optimizers, on a CPU.

    python optimizers.py     (torch, bitsandbytes, numpy, safetensors; writes optimizers.safetensors)

Three parameters, `matrix` [6, 10], `tall` [9, 4] and `vector` [17], take 20 steps; `large` [80, 72] is for states of bytes.
Starts and gradients are whole-number sequences that the test computes again.
"""

import os
import pathlib

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.backends.triton.kernels_optim import optimizer_update_8bit_blockwise_pytorch as update8
from safetensors.numpy import save_file
from torch.optim import _muon

HERE = pathlib.Path(__file__).parent
SHAPES = {"matrix": (6, 10), "tall": (9, 4), "vector": (17,)}
LARGE = {"large": (80, 72)}


def noise(step, shape):
    """From -0.5 to 0.5, every fourth value a power of ten smaller than the one before."""
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = ((i * 7919 + step * 104729 + 13) % 1009).astype(np.float64) / 1009 - 0.5
    size = np.array([1.0, 0.1, 0.01, 0.001])[i % 4]
    return torch.from_numpy((values * size).astype(np.float32)).reshape(shape)


def train(make, shapes, steps=20):
    parameters = {name: torch.nn.Parameter(noise(1000, shape) * 2) for name, shape in shapes.items()}
    optimizers = make(parameters)
    for step in range(1, steps + 1):
        for parameter in parameters.values():
            parameter.grad = noise(step, parameter.shape)
        for optimizer in optimizers:
            optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


class Lion:
    """The op of bitsandbytes for states of floats."""

    def __init__(self, parameters, decay):
        self.all, self.decay, self.number = [(p, torch.zeros_like(p)) for p in parameters], decay, 0

    def step(self):
        self.number += 1
        for p, state in self.all:
            bnb.optimizer_update_32bit(
                "lion", p.grad, p.data, state, 0.9, 0.0, self.number, 1e-2, None, 0.99, 0.0, 0.0, self.decay
            )


class Adam8:
    """What bitsandbytes states its kernels to do for states of bytes. (Its op for a CPU rounds to a coarser table.)"""

    def __init__(self, parameters):
        self.all, self.number = [], 0
        for p in parameters:
            blocks = -(-p.numel() // 256)
            self.all.append((p, *(torch.zeros_like(p, dtype=torch.uint8) for _ in "mv"), *(torch.zeros(blocks) for _ in "mv")))
        self.maps = bnb.create_dynamic_map(signed=True), bnb.create_dynamic_map(signed=False)

    def step(self):
        self.number += 1
        for p, m, v, a, b in self.all:
            update8(
                p, p.grad, m, v, 0.9, 0.999, 0.0, 0.0, 1e-8, self.number, 1e-2, *self.maps, a, b, 0.1, 1.0, False,
                optimizer_name="adam",
            )  # fmt: skip


def one(kind, **settings):
    return lambda parameters: [kind(parameters.values(), lr=1e-2, **settings)]


def muon(**settings):
    def make(parameters):
        matrices = [p for p in parameters.values() if p.ndim == 2]
        rest = [p for p in parameters.values() if p.ndim != 2]
        return [torch.optim.Muon(matrices, lr=1e-2, **settings), torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.1)]

    return make


O = torch.optim
RUNS = {
    "sgd": one(O.SGD),
    "sgd-momentum": one(O.SGD, momentum=0.9, dampening=0.2, weight_decay=0.1),
    "sgd-nesterov": one(O.SGD, momentum=0.9, nesterov=True),
    "adam": one(O.Adam, weight_decay=0.1),
    "adamw": one(O.AdamW, betas=(0.8, 0.95), weight_decay=0.1),
    "rmsprop": one(O.RMSprop, weight_decay=0.1),
    "rmsprop-centered": one(O.RMSprop, centered=True, momentum=0.9),
    "adagrad": one(O.Adagrad, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    "adadelta": one(O.Adadelta, weight_decay=0.1),
    "lion": lambda parameters: [Lion(parameters.values(), 0.1)],
    "adafactor": one(O.Adafactor, weight_decay=0.1),
    "muon-half": muon(),
}
found = {}
for name, make in RUNS.items():
    found |= {f"{name}.{part}": value for part, value in train(make, SHAPES).items()}
eight = []
large = train(lambda parameters: [eight.append(Adam8(parameters.values())) or eight[0]], LARGE)["large"]
_, m, v, a, b = eight[0].all[0]
found |= {"adamw8bit.large": large, "adamw8bit.mean": m, "adamw8bit.square": v}
found |= {"adamw8bit.mean_scale": a, "adamw8bit.square_scale": b}
found |= {"map.signed": bnb.create_dynamic_map(True), "map.unsigned": bnb.create_dynamic_map(False)}

# The same orthogonal matrices in single precision.
torch.bfloat16 = torch.float32
_muon.torch.bfloat16 = torch.float32
for name, make in {"muon": muon(), "muon-rms": muon(nesterov=False, adjust_lr_fn="match_rms_adamw")}.items():
    found |= {f"{name}.{part}": value for part, value in train(make, SHAPES).items()}
save_file({name: np.ascontiguousarray(value.numpy()) for name, value in found.items()}, HERE / "optimizers.safetensors")
print(len(found), "tensors")

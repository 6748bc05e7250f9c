"""Losses of 20 steps of small nets of torch, from values that the test computes again.

    python modules.py     (torch; writes modules.json)
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def plain(number, shape):
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = ((i * 7919 + number * 104729 + 13) % 1009).astype(np.float64) / 1009 - 0.5
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.norm1 = nn.RMSNorm(16, eps=1e-6)
        self.attention = nn.ModuleDict(
            {name: nn.Linear(16, out) for name, out in [("q_proj", 16), ("k_proj", 8), ("v_proj", 8), ("o_proj", 16)]}
        )
        self.norm2 = nn.RMSNorm(16, eps=1e-6)
        mlp = [("gate_proj", 16, 24), ("up_proj", 16, 24), ("down_proj", 24, 16)]
        self.mlp = nn.ModuleDict({name: nn.Linear(inp, out, bias=False) for name, inp, out in mlp})
        self.norm = nn.RMSNorm(16, eps=1e-6)
        self.head = nn.Linear(16, 11, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        y, a = self.norm1(x), self.attention
        q, k, v = (a[n](y).unflatten(-1, (-1, 4)).transpose(1, 2) for n in ["q_proj", "k_proj", "v_proj"])
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + a["o_proj"](y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))
        return self.head(self.norm(x)).flatten(0, 1)


tokens = torch.tensor([[(3 * i * i + 5 * s) % 11 for i in range(8)] for s in range(2)])
NETS = {
    "mlp": (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 5)), plain(900, (12, 8)), 5),
    "images": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, groups=2), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3),
        ),
        plain(900, (6, 2, 10, 10)),
        3,
    ),
    "sequences": (
        nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.Tanh(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(16, 4)),
        plain(900, (5, 3, 18)),
        4,
    ),
    "decoder": (Block(), tokens[:, :-1], None),
}  # fmt: skip
found = {}
for name, (net, x, classes) in NETS.items():
    for number, (key, parameter) in enumerate(net.named_parameters()):
        start = plain(number, parameter.shape) * 0.6
        parameter.data = start + 1 if parameter.ndim == 1 and key.endswith("weight") else start
    found[name + ".names"] = [key for key, _ in net.named_parameters()]
    target = tokens[:, 1:].flatten() if classes is None else torch.arange(len(x)) % classes
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    found[name] = []
    for _ in range(20):
        loss = F.cross_entropy(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found[name].append(loss.item())
    print(name, found[name][0], found[name][-1])
text = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
pathlib.Path(__file__).with_name("modules.json").write_text("{\n" + text + "\n}\n")

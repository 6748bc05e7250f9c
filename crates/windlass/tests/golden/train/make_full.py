"""Losses of 20 steps of torch on all weights, on some, and on new layers, of the tiny models beside this folder.

    python make_full.py     (torch, transformers; after make.py, whose data.jsonl it reads; writes full.json)
"""

import copy
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
rows = [json.loads(line) for line in (HERE / "data.jsonl").read_text().splitlines()]


def padded(rows, key, fill):
    longest = max(len(row["input_ids"]) for row in rows)
    return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])


def losses(model, parameters):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    model.train()
    found = []
    for step in range(20):
        part = rows[2 * step : 2 * step + 2]
        mask = padded([{"input_ids": r["input_ids"], "m": [1] * len(r["input_ids"])} for r in part], "m", 0)
        logits = model(input_ids=padded(part, "input_ids", 0), attention_mask=mask).logits
        targets = padded(part, "labels", -100)[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(targets.numel(), -1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def base(name):
    path = HERE.parent / "models" / name
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


found = {}
for name in ["qwen3", "llama", "qwen2", "gemma2", "gemma3", "phi3"]:
    model = base(name)
    found[f"full-{name}"] = losses(model, list(model.parameters()))
model = base("llama")
found["norms-llama"] = losses(model, [p for n, p in model.named_parameters() if n.endswith("norm.weight")])

# A copy after each of two layers.
model = base("qwen3")
layers, new = torch.nn.ModuleList(), []
for layer in model.model.layers:
    layers.append(layer)
    layers.append(copy.deepcopy(layer))
    torch.nn.init.zeros_(layers[-1].self_attn.o_proj.weight)
    torch.nn.init.zeros_(layers[-1].mlp.down_proj.weight)
    new += layers[-1].parameters()
for index, layer in enumerate(layers):
    layer.self_attn.layer_idx = index
model.model.layers = layers
model.config.num_hidden_layers = len(layers)
model.config.layer_types = ["full_attention"] * len(layers)
found["pro-qwen3"] = losses(model, new)
print({name: (each[0], each[-1]) for name, each in found.items()})
text = ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
(HERE / "full.json").write_text("{\n" + text + "\n}\n")

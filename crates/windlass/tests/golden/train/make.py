"""Losses of 20 steps of torch and peft on the tiny models beside this folder.

    python make.py     (torch, transformers, peft, bitsandbytes; writes data.jsonl, NAME/adapter_*, NAME/losses.json)

Every run starts from the adapter that is written with it.
"""

import json
import pathlib
import random

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

HERE = pathlib.Path(__file__).parent
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RUNS = {
    "qwen3-lora": ("qwen3", dict(target_modules=ALL)),
    "llama-rslora": ("llama", dict(target_modules=["q_proj", "v_proj"], use_rslora=True)),
    "qwen2-dora": ("qwen2", dict(target_modules=ALL, use_dora=True)),
    "gemma2-lora": ("gemma2", dict(target_modules=["q_proj", "o_proj", "down_proj"])),
    "phi3-lora": ("phi3", dict(target_modules=["qkv_proj", "gate_up_proj", "o_proj"])),
    "qwen3-nf4": ("qwen3", dict(target_modules=ALL, nf4=True)),
}

random.seed(1)
rows = []
for _ in range(40):
    tokens = [random.randrange(3, 128) for _ in range(random.randint(8, 24))]
    given = random.randint(0, 4)
    rows.append({"input_ids": tokens, "labels": [-100] * given + tokens[given:]})
(HERE / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def padded(rows, key, fill):
    longest = max(len(row["input_ids"]) for row in rows)
    return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])


for name, (base, settings) in RUNS.items():
    torch.manual_seed(0)
    settings = dict(settings)
    quantize = {}
    if settings.pop("nf4", False):
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
            # Its rows of 96 values are no blocks of 64.
            llm_int8_skip_modules=["lm_head", "down_proj"],
        )
        quantize = {"quantization_config": how}
    model = AutoModelForCausalLM.from_pretrained(
        HERE.parent / "models" / base, dtype=torch.float32, attn_implementation="eager", **quantize
    )
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM", **settings))
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink(missing_ok=True)
    config = json.loads((HERE / name / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (HERE / name / "adapter_config.json").write_text(json.dumps(config, indent=2))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.01)
    model.train()
    losses = []
    for step in range(20):
        part = rows[2 * step : 2 * step + 2]
        mask = padded([{"input_ids": r["input_ids"], "m": [1] * len(r["input_ids"])} for r in part], "m", 0)
        logits = model(input_ids=padded(part, "input_ids", 0), attention_mask=mask).logits
        targets = padded(part, "labels", -100)[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(targets.numel(), -1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    (HERE / name / "losses.json").write_text(json.dumps(losses))
    print(name, losses[0], losses[-1])

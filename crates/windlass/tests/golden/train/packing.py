"""The mean loss of all rows of data.jsonl, each run alone by torch: what packs of them must come to.

    python packing.py     (torch, transformers, peft; writes packing.json)
"""

import json
import pathlib

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
model = AutoModelForCausalLM.from_pretrained(HERE.parent / "models" / "qwen3", dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(model, HERE / "qwen3-lora").eval()
total = count = 0
losses = []
for line in (HERE / "data.jsonl").read_text().splitlines():
    row = json.loads(line)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].double()
    targets = torch.tensor(row["labels"][1:])
    total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    count += (targets != -100).sum().item()
(HERE / "packing.json").write_text(json.dumps({"loss": total / count, "targets": count}))
print(total / count, count)

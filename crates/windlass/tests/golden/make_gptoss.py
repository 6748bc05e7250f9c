"""Makes gptoss/packed, a tiny gpt-oss with experts in MXFP4 as published ones have them, and gptoss/plain, the same as transformers
unpacks and saves it.

    python make_gptoss.py
"""
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "tests" / "oracle"))
import gptoss

YARN = dict(rope_type="yarn", rope_theta=150000.0, factor=8.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=64)

torch.manual_seed(0)
config = transformers.GptOssConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=32, vocab_size=64,
    num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=512, sliding_window=8, bos_token_id=0, eos_token_id=1,
    pad_token_id=0, rope_parameters=YARN)
model = transformers.GptOssForCausalLM(config).to(torch.bfloat16)
for parameter in model.parameters():
    parameter.data = torch.randn(parameter.shape).to(torch.bfloat16)
out = HERE / "gptoss"
shutil.rmtree(out, ignore_errors=True)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    gptoss.publish(pathlib.Path(folder), out / "packed")
# A model that was unpacked would be saved under the names of packed arrays.
unpacked = gptoss.by_transformers(out / "packed", True).state_dict()
model.load_state_dict(unpacked)
model.save_pretrained(out / "plain")

"""gpt-oss as it is published, with experts in MXFP4: its GGUF runs in llama.cpp, its MLX folder in mlx_lm, its values are transformers'.

    python gptoss.py WINDLASS CHECKPOINTS WORK
"""
import ctypes
import json
import pathlib
import shutil
import sys

import gguf
import llama_cpp
import mlx.core as mx
import mlx_lm
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import compare


def codes(rows):
    """MXFP4 of rows: the nearest value for an exponent that keeps the largest below 6; two codes to a byte, low half first."""
    blocks = rows.reshape(*rows.shape[:-1], -1, 32)
    exponents = np.ceil(np.log2(np.abs(blocks).max(-1) / 6)).clip(-127, 127)
    scaled = blocks / np.exp2(exponents)[..., None]
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    found = np.abs(np.abs(scaled)[..., None] - grid).argmin(-1) + 8 * np.signbit(scaled)
    return (found[..., ::2] | found[..., 1::2] << 4).astype(np.uint8), (exponents + 127).astype(np.uint8)


def publish(source, out):
    """The checkpoint SOURCE with its experts as published ones have them."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors"))
    packed = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith("_proj") and ".experts." in name:
            blocks, scales = codes(np.ascontiguousarray(tensor.float().numpy().swapaxes(1, 2)))
            packed[f"{name}_blocks"], packed[f"{name}_scales"] = torch.from_numpy(blocks), torch.from_numpy(scales)
        else:
            packed[name] = tensor
    save_file(packed, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"modules_to_not_convert": kept, "quant_method": "mxfp4"}
    (out / "config.json").write_text(json.dumps(config, indent=2))


def by_transformers(folder, packed):
    how = dict(quantization_config=transformers.Mxfp4Config(dequantize=True)) if packed else {}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager", **how)


def check_gguf(folder, work):
    """Codes and scales move as they are: halves of a byte are the first and the second half of a block there."""
    compare.windlass("convert", folder, work / "model.gguf", "--overwrite")
    arrays, found = load_file(folder / "model.safetensors"), compare.tensors(work / "model.gguf")
    for layer in range(2):
        for theirs, step, first, ours in [("gate_up", 2, 0, "gate"), ("gate_up", 2, 1, "up"), ("down", 1, 0, "down")]:
            name = f"model.layers.{layer}.mlp.experts.{theirs}_proj_"
            blocks, scales = (arrays[name + kind].numpy()[:, first::step] for kind in ["blocks", "scales"])
            nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
            expected = np.concatenate([scales[..., None], nibbles[..., :16] | nibbles[..., 16:] << 4], -1)
            tensor = found[f"blk.{layer}.ffn_{ours}_exps.weight"]
            assert tensor.tensor_type == gguf.GGMLQuantizationType.MXFP4, tensor.tensor_type
            assert np.array_equal(np.asarray(tensor.data).flatten(), expected.flatten()), tensor.name
            bias, wanted = found[f"blk.{layer}.ffn_{ours}_exps.bias"], arrays[name + "bias"].float().numpy()[:, first::step]
            assert np.array_equal(np.asarray(bias.data), wanted), bias.name
    # Against the values as floats: llama.cpp multiplies MXFP4 by activations in eight bits.
    compare.windlass("convert", work / "model.gguf", work / "f32.gguf", "--scheme", "f32", "--overwrite")
    with torch.no_grad():
        theirs = by_transformers(folder, True).float()(torch.tensor([compare.TOKENS])).logits[0].numpy()
    ours, coded = compare.logits_by_llama_cpp(work / "f32.gguf"), compare.logits_by_llama_cpp(work / "model.gguf")
    errors = [np.abs(found - theirs).max() / np.abs(theirs).max() for found in (ours, coded)]
    assert errors[0] < 1e-3 and errors[1] < 5e-2, errors
    return f"codes are those of the checkpoint; logits of llama.cpp {errors[0]:.1e} (as floats), {errors[1]:.1e} (MXFP4)"


def check_folders(folder, work):
    for source, target, scheme in [(folder, "plain", "bf16"), (folder, "copy", None), (work / "model.gguf", "back", None)]:
        flags = ["--scheme", scheme] if scheme else []
        compare.windlass("convert", source, work / target, "--to", "safetensors", *flags, "--overwrite")
        ours, theirs = by_transformers(work / target, False).state_dict(), by_transformers(folder, True).state_dict()
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert torch.equal(ours[name], theirs[name]), (target, name)
        assert "quantization_config" not in json.loads((work / target / "config.json").read_text())
    difference = compare.windlass("diff", work / "plain", work / "model.gguf")
    assert all(t["identical"] for t in difference["tensors"]) and not difference["only_in_a"], difference
    return "unpacked, copied and back from GGUF: all tensors equal to transformers' own unpacking"


def check_mlx(folder, work):
    mx.set_default_device(mx.cpu)
    compare.windlass("convert", folder, work / "mlx", "--to", "mlx", "--overwrite")
    theirs = mlx_lm.load(str(folder))[0](mx.array([compare.TOKENS])).astype(mx.float32)
    ours = mlx_lm.load(str(work / "mlx"))[0](mx.array([compare.TOKENS])).astype(mx.float32)
    assert np.array_equal(np.array(ours), np.array(theirs)), np.abs(np.array(ours) - np.array(theirs)).max()
    return "logits equal those of mlx_lm with the checkpoint itself"


def main(checkpoints, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    publish(checkpoints / "gptoss", work / "gptoss-mxfp4")
    failed = 0
    for check in [check_gguf, check_folders, check_mlx]:
        try:
            print(f"ok      gptoss     {check(work / 'gptoss-mxfp4', work)}", flush=True)
        except Exception as e:
            failed += 1
            print(f"FAILED  gptoss     {check.__name__}: {type(e).__name__}: {str(e)[:600]}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    compare.WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))

"""Checkpoints of the libraries that quantize, both ways: what they save has their values here, and they load what is written here.

    python libraries.py WINDLASS CHECKPOINTS WORK
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import packed

TOKENS = torch.tensor([[1, 5, 17, 900, 42, 300, 7, 11, 250, 600, 3, 77]])


def windlass(*arguments):
    done = subprocess.run([WINDLASS, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def values(folder, work):
    """All tensors of a checkpoint as F32, by windlass."""
    windlass("convert", folder, work / "values", "--to", "safetensors", "--scheme", "f32", "--overwrite")
    return load_file(work / "values" / "model.safetensors")


def assert_equal(ours, theirs, label):
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].to(tensor.dtype), tensor), (label, name, (ours[name] - tensor.float()).abs().max())


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def check_packed(source, work):
    """Calibrated libraries: values to GGUF and to a folder are the formats' own; symmetric codes move to Q4_0 as they are."""
    for kind in packed.KINDS:
        packed.save(source, work, kind)
        windlass("verify", work / kind, "--deep")
        # compressed-tensors rounds products to the type of the model.
        for scheme in ["bf16"] if kind.startswith("ct") else ["f32", "f16"]:
            a, b = work / "packed.gguf", work / "plain.gguf"
            windlass("convert", work / kind, a, "--scheme", scheme, "--overwrite")
            windlass("convert", work / f"{kind}-plain", b, "--scheme", scheme, "--overwrite")
            for tensor in windlass("diff", a, b)["tensors"]:
                assert tensor["identical"], (kind, scheme, tensor)
    for kind, scheme, requantized in [("gptq4-sym-g32", "q4_0", 0), ("gptq4-g128", "q4_1", None), ("awq4-g64", "mlx4-g64", None)]:
        report = windlass("convert", work / kind, work / "moved", "--to", "mlx" if "mlx" in scheme else "gguf",
                          "--scheme", scheme, "--overwrite")
        # Embeddings were plain, so they are quantized.
        assert requantized is None or report["repacked"] >= 14, report
        shutil.rmtree(work / "moved") if (work / "moved").is_dir() else (work / "moved").unlink()
    return f"{', '.join(packed.KINDS)}: equal to the published formulas"


def check_loaded(source, work):
    """Whole checkpoints of libraries that transformers loads: the weights that it unpacks are ours."""
    for kind in packed.LOADED:
        packed.save(source, work, kind)
        config = transformers.FineGrainedFP8Config(dequantize=True) if kind == "fp8" else transformers.CompressedTensorsConfig(run_compressed=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(work / kind, quantization_config=config, dtype=torch.bfloat16, device_map="cpu")
        theirs = {k: v for k, v in model.state_dict().items() if k.endswith("_proj.weight")}
        assert len(theirs) >= 14 and all(v.dtype.is_floating_point for v in theirs.values()), theirs.keys()
        assert_equal(values(work / kind, work), theirs, kind)
    return f"{', '.join(packed.LOADED)}: loaded by transformers with these values"


def hqq_model(folder, config):
    """A model with HQQ's layers, filled from a folder that has their state. HQQ has no loader for such a folder."""
    from hqq.core.quantize import HQQLinear
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(config), dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    layers = {name.removesuffix(".W_q") for name in tensors if name.endswith(".W_q")}
    plain = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in layers}
    model.load_state_dict(plain, strict=False)
    model.tie_weights()
    for name in layers:
        layer = HQQLinear(None, None, compute_dtype=torch.bfloat16, device="cpu", initialize=False)
        layer.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    return model.eval()


def hqq_values(model):
    from hqq.core.quantize import HQQLinear
    return {f"{n}.weight": m.dequantize() for n, m in model.named_modules() if isinstance(m, HQQLinear)}


def check_hqq(source, work):
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel
    checked = []
    for bits, group in [(8, 128), (4, 64), (3, 64), (2, 16), (1, 32)]:
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=1)
        AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=torch.float32, device="cpu")
        theirs = work / f"hqq{bits}"
        shutil.rmtree(theirs, ignore_errors=True)
        theirs.mkdir()
        # What save_to_safetensors does, but for tensors that share memory, which it cannot save.
        tied = ["lm_head.weight"] if model.config.tie_word_embeddings else []
        save_file({k: v for k, v in model.state_dict().items() if k not in tied}, theirs / "model.safetensors")
        model.config.to_json_file(theirs / "config.json")
        assert_equal(values(theirs, work), hqq_values(model), theirs)
        ours = work / f"hqq{bits}-ours"
        windlass("convert", source, ours, "--scheme", f"hqq{bits}-g{group}", "--overwrite")
        again = work / f"hqq{bits}-again"
        windlass("convert", ours, again, "--overwrite")
        assert (ours / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
        loaded = hqq_model(ours, source)
        assert_equal(values(ours, work), hqq_values(loaded), ours)
        checked.append(f"{bits} bits")
    return f"hqq: {', '.join(checked)} read with its values, and loaded by it"


def quanto_values(folder, kind):
    """Values of all packed tensors of a folder, as Quanto computes them without the kernels that repack them."""
    from optimum.quanto import WeightQBitsTensor, WeightQBytesTensor, qtypes
    kind, arrays, values = qtypes[kind], load_file(folder / "model.safetensors"), {}
    for name in [name.removesuffix("._scale") for name in arrays if name.endswith(".weight._scale")]:
        scale = arrays[f"{name}._scale"]
        if kind.bits == 8:
            data = arrays[f"{name}._data"]
            weight = WeightQBytesTensor(kind, 0, data.size(), data.stride(), data, scale, None)
        else:
            data = arrays[f"{name}._data._data"]
            size = torch.Size([scale.numel(), data.shape[1]])
            # Its own unpacking would be compiled here; the first groups are in the lowest bits.
            shifts = range(0, 8, kind.bits)
            data = torch.cat([(data >> shift) & (2**kind.bits - 1) for shift in shifts])[: size[0]]
            weight = WeightQBitsTensor(kind, 0, size[1], size, (size[1], 1), data, scale, arrays[f"{name}._shift"])
        values[name] = weight.dequantize().flatten()
    return values


def check_quanto(source, work):
    from optimum.quanto import QuantizedModelForCausalLM, qfloat8, qint2, qint4, qint8
    checked = []
    for name, kind in dict(qint8=qint8, qfloat8=qfloat8, qint4=qint4, qint2=qint2).items():
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
        quantized = QuantizedModelForCausalLM.quantize(model, weights=kind, exclude="lm_head")
        theirs, ours = work / name, work / f"{name}-ours"
        shutil.rmtree(theirs, ignore_errors=True)
        quantized.save_pretrained(theirs)
        for folder in [theirs, ours]:
            if folder == ours:
                windlass("convert", source, ours, "--scheme", name, "--overwrite")
            flat = {k: v.flatten() for k, v in values(folder, work).items()}
            assert_equal(flat, quanto_values(folder, name), folder)
        a, b = load_file(theirs / "model.safetensors"), load_file(ours / "model.safetensors")
        assert a.keys() == b.keys(), (name, a.keys() ^ b.keys())
        differ = [k for k in a if not torch.equal(a[k].flatten().view(torch.uint8), b[k].flatten().view(torch.uint8))]
        # On a CPU Quanto keeps 4 bits in the order of a kernel, and saving rounds the shifts once more.
        assert all(name == "qint4" and k.endswith("._shift") for k in differ), (name, differ)
        assert json.loads((ours / "quanto_qmap.json").read_text()) == json.loads((theirs / "quanto_qmap.json").read_text())
        QuantizedModelForCausalLM.from_pretrained(str(ours))
        checked.append(f"{name}")
    return f"quanto: {', '.join(checked)} read with its values, written with its bytes, and loaded by it"


def check_bitsandbytes(source, work):
    import bitsandbytes
    checked = []
    for scheme, settings in {"nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
                             "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
                             "nf4-dq": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)}.items():
        config = transformers.BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.bfloat16, **settings)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu", dtype=torch.bfloat16)
        theirs, ours = work / f"bnb-{scheme}", work / f"bnb-{scheme}-ours"
        shutil.rmtree(theirs, ignore_errors=True)
        model.save_pretrained(theirs)
        weights = {f"{n}.weight": bitsandbytes.functional.dequantize_4bit(m.weight.data, m.weight.quant_state)
                   for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
        assert_equal(values(theirs, work), weights, scheme)
        windlass("convert", source, ours, "--scheme", scheme, "--overwrite")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(ours, device_map="cpu", dtype=torch.bfloat16)
        assert torch.equal(logits(loaded), logits(model)), scheme
        checked.append(scheme)
    return f"bitsandbytes: {', '.join(checked)} read with its values, and loaded with its logits"


CHECKS = [check_packed, check_loaded, check_hqq, check_quanto, check_bitsandbytes]


def main(checkpoints, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    failed = 0
    for name in ["llama", "qwen3"]:
        for check in CHECKS:
            try:
                print(f"ok      {name:10} {check(checkpoints / name, work)}", flush=True)
            except Exception as e:
                failed += 1
                print(f"FAILED  {name:10} {check.__name__}: {type(e).__name__}: {str(e)[:600]}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    WINDLASS = os.path.realpath(sys.argv[1])
    transformers.logging.set_verbosity_error()
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))

"""Makes golden/pytorch: files written by torch.save, in its forms and protocols, and folders with an index.

    python make_pytorch.py       (needs torch)
"""

import io
import json
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

OUT = Path(__file__).parent / "pytorch"
TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "complex64": "C64",
}


def raw(tensor):
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    return bytes(tensor.reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def fnv(data):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def note(name, tensors):
    facts = {
        key: {
            "dtype": TYPES[str(t.dtype).removeprefix("torch.")],
            "shape": list(t.shape),
            "fnv": f"{fnv(raw(t)):016x}",
        }
        for key, t in sorted(tensors.items())
    }
    (OUT / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def all_types():
    generator = torch.Generator().manual_seed(1)
    tensors = OrderedDict()
    for name in TYPES:
        dtype = getattr(torch, name)
        size = torch.empty((), dtype=dtype).element_size()
        data = torch.randint(0, 2 if name == "bool" else 256, (2, 3 * size), dtype=torch.uint8, generator=generator)
        tensors[f"a.{name}"] = data.view(dtype)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros((0, 4), dtype=torch.float16)
    tensors["vector \u00e9\U0001f600\"\\"] = torch.arange(5, dtype=torch.int16)
    return tensors


def views():
    """Tensors that share storages: parts of a larger one, the same twice, a column, strides of dimensions of one."""
    base = torch.arange(24, dtype=torch.float32)
    tied = torch.nn.Parameter(torch.arange(6, dtype=torch.bfloat16).reshape(2, 3))
    return OrderedDict(
        whole=base.reshape(4, 6), rows=base.reshape(4, 6)[1:3], tail=base[20:], embed=tied, head=tied,
        column=base.reshape(4, 6)[:, 2:3][1:2].t(), frozen=torch.nn.Parameter(torch.ones(2), requires_grad=False),
    )


def folders():
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2, bias=False))
    state = model.state_dict()
    names = list(state)
    parts = [names[:1], names[1:]]
    config = json.dumps({"model_type": "sequential"}) + "\n"
    for folder in ["single", "parts"]:
        (OUT / folder).mkdir()
        (OUT / folder / "config.json").write_text(config)
    torch.save(state, OUT / "single" / "pytorch_model.bin")
    weight_map = {}
    for i, part in enumerate(parts):
        file = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save({name: state[name].clone() for name in part}, OUT / "parts" / file)
        weight_map |= {name: file for name in part}
    total = sum(t.numel() * t.element_size() for t in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (OUT / "parts" / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    note("model", state)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    types = all_types()
    note("types", types)
    for protocol in [2, 3, 4, 5]:
        name = "types" if protocol == 2 else f"types-protocol{protocol}"
        torch.save(types, OUT / f"{name}.bin", pickle_protocol=protocol)
    # The older form has no storages for the types that came after it.
    newer = ("a.float8", "a.uint16", "a.uint32", "a.uint64")
    old = OrderedDict((name, t) for name, t in types.items() if not name.startswith(newer))
    note("legacy", old)
    for protocol in [2, 4]:
        file = OUT / f"legacy-protocol{protocol}.pt"
        torch.save(old, file, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    note("views", views())
    torch.save(views(), OUT / "views.pt")
    torch.save(views(), OUT / "views-legacy.pt", _use_new_zipfile_serialization=False)
    nested = {
        "state_dict": views(), "epoch": 3, "loss": 0.125, "best": True, "name": "caf\u00e9", "step": -(2**40),
        "config": {"layers": 2}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "lr": [1e-3]},
        "huge": 2**70, "none": None,
    }
    torch.save(nested, OUT / "nested.pth")
    torch.save({}, OUT / "nothing.bin")
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t()}, OUT / "transposed.pt")
    torch.serialization.set_crc32_options(False)
    torch.save(views(), OUT / "views-unchecked.pt")
    torch.serialization.set_crc32_options(True)
    # The same members as another program would put them into a zip.
    plain = io.BytesIO()
    with zipfile.ZipFile(OUT / "views.pt") as source, zipfile.ZipFile(plain, "w") as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name), source.read(name))
    (OUT / "views-rezipped.pt").write_bytes(plain.getvalue())
    folders()


main()

"""Write the small GGUF files of this folder with gguf-py, the library that defines the format.

    pip install gguf && python make_gguf.py

- values.gguf: every type of value, alone and in an array, and arrays of arrays; no tensors
- types.gguf: one tensor of each type, two rows of 256 values; byte i of the type with id t is (31 i + t) mod 256
- align64.gguf: alignment 64 and tensors of 1 to 4 dimensions; byte i of tensor number n is (31 i + n) mod 256
- split-0000N-of-00003.gguf: five tensors in three files, bytes as in align64.gguf
- imatrix.gguf, imatrix.dat: an importance matrix of two tensors, one with experts of which one was never chosen
"""
import logging, pathlib, struct
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFValueType as Value, GGUFWriter, GGML_QUANT_SIZES

FOLDER = pathlib.Path(__file__).parent
logging.disable()


def pattern(count, seed):
    return np.array([(31 * i + seed) % 256 for i in range(count)], dtype=np.uint8)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


SCALARS = [
    (Value.UINT8, [0, 200, 255]),
    (Value.INT8, [-128, -1, 127]),
    (Value.UINT16, [0, 40000, 65535]),
    (Value.INT16, [-32768, -1, 32767]),
    (Value.UINT32, [0, 3000000000, 2**32 - 1]),
    (Value.INT32, [-(2**31), -1, 2**31 - 1]),
    (Value.FLOAT32, [0.5, -1.25, 2.0**100]),
    (Value.BOOL, [True, False, True]),
    (Value.STRING, ["", "plain", "größer ▁世界 🜚"]),
    (Value.UINT64, [0, 2**63, 2**64 - 1]),
    (Value.INT64, [-(2**63), -1, 2**63 - 1]),
    (Value.FLOAT64, [0.1, -1e300, 2.5]),
]

writer = GGUFWriter(FOLDER / "values.gguf", "golden")
for kind, items in SCALARS:
    name = kind.name.lower()
    writer.add_key_value(f"scalar.{name}", items[1], kind)
    writer.add_key_value(f"array.{name}", items, Value.ARRAY, sub_type=kind)
writer.add_key_value("array.array", [[1, 2], [3]], Value.ARRAY)
writer.add_key_value("array.array.array", [[["a"], ["b", "c"]]], Value.ARRAY)
finish(writer)

writer = GGUFWriter(FOLDER / "types.gguf", "golden")
writer.add_quantization_version(2)
for kind in Type:
    if kind in (Type.Q8_1, Type.Q8_K, Type.Q1_0):                     # never stored in files; the last too new
        continue
    block, size = GGML_QUANT_SIZES[kind]
    data = pattern(2 * 256 // block * size, kind.value).reshape(2, -1)
    writer.add_tensor(kind.name.lower(), data, raw_dtype=kind)
finish(writer)


def numbered(writer, shapes):
    for n, shape in enumerate(shapes):
        data = pattern(4 * int(np.prod(shape)), n).view(np.float32).reshape(shape)
        writer.add_tensor(f"t.{n}", data)
    finish(writer)


SHAPES = [(3,), (2, 5), (2, 3, 4), (2, 1, 3, 5), (17,)]
writer = GGUFWriter(FOLDER / "align64.gguf", "golden")
writer.add_custom_alignment(64)
numbered(writer, SHAPES)

writer = GGUFWriter(FOLDER / "split.gguf", "golden", split_max_tensors=2)
writer.add_name("in three files")
numbered(writer, SHAPES)

sums = np.array([[2, 4, 6, 8], [1, 1, 1, 1], [9, 3, 6, 12]], dtype=np.float32)
counts = np.array([[2], [0], [3]], dtype=np.float32)
dense = np.array([[5, 10, 20]], dtype=np.float32)
writer = GGUFWriter(FOLDER / "imatrix.gguf", "")
writer.add_type("imatrix")
writer.add_array("imatrix.datasets", ["a.txt", "b.txt"])
writer.add_uint32("imatrix.chunk_count", 7)
writer.add_uint32("imatrix.chunk_size", 512)
writer.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", sums)
writer.add_tensor("blk.0.ffn_up_exps.weight.counts", counts)
writer.add_tensor("blk.0.attn_q.weight.in_sum2", dense)
writer.add_tensor("blk.0.attn_q.weight.counts", np.array([[5]], dtype=np.float32))
finish(writer)


def text(string):
    return struct.pack("<i", len(string)) + string.encode()


# The layout that llama.cpp wrote before it used GGUF: sums are of means per chunk.
(FOLDER / "imatrix.dat").write_bytes(
    struct.pack("<i", 1) + text("blk.0.attn_q.weight") + struct.pack("<ii", 5, 3) + dense.tobytes() + struct.pack("<i", 7) + text("a.txt")
)

"""Parquet files of rows as pyarrow writes them, and hostile files of rows.

    python parquet.py          (pyarrow; writes parquet/*.parquet, parquet/rows.json and attacks/rows)
"""
import json
import pathlib
import struct

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent / "parquet"
HERE.mkdir(exist_ok=True)
ATTACKS = pathlib.Path(__file__).parents[4] / "attacks" / "rows"
ATTACKS.mkdir(exist_ok=True)

rows = [
    {"text": None if i % 5 == 4 else f"row {i} " + "é" * (i % 3), "n": i, "x": i / 2,
     "input_ids": [i, i + 1, 7, 7, 7, 7][: 2 + i % 5], "labels": None if i % 4 == 0 else [-100] + [i + 1, 7, 7, 7, 7][: 1 + i % 5],
     "messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}][: 1 + i % 2],
     "unread": {"deep": [[i]]}}
    for i in range(200)
]
struct_type = pa.struct([("role", pa.string()), ("content", pa.string())])
schema = pa.schema([
    ("text", pa.string()), ("n", pa.int64()), ("x", pa.float64()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int64())),
    ("messages", pa.list_(struct_type)), ("unread", pa.struct([("deep", pa.list_(pa.list_(pa.int64())))])),
])
table = pa.Table.from_pylist(rows, schema=schema)
ways = {
    "snappy": dict(compression="snappy", row_group_size=64),
    "zstd": dict(compression="zstd", row_group_size=70, data_page_version="2.0", data_page_size=256),
    "plain": dict(compression="none", use_dictionary=False, data_page_size=128, write_batch_size=8),
    "lz4": dict(compression="lz4", row_group_size=150),
}
for name, how in ways.items():
    pq.write_table(table, HERE / f"{name}.parquet", **how)
(HERE / "rows.json").write_text(json.dumps([{k: v for k, v in row.items() if k != "unread"} for row in rows]))

# What is not read, and says so.
small = pa.table({"text": ["a", "b"]})
pq.write_table(small, ATTACKS / "gzip.parquet", compression="gzip")
pq.write_table(small, ATTACKS / "delta.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
pq.write_table(pa.table({"messages": [[["a"]]]}), ATTACKS / "list-in-list.parquet")
pq.write_table(pa.table({"words": ["a"]}), ATTACKS / "no-column.parquet")
pq.write_table(pa.table({"text": pa.array([b"\xff\xfe"], pa.binary())}), ATTACKS / "not-utf8.parquet")

# What lies: sizes and counts in the headers of pages and in the footer.
whole = lambda **how: (pq.write_table(pa.table({"text": ["abc" * 50] * 9}), HERE / "t", **how), (HERE / "t").read_bytes())[1]
plain = whole(compression="none", use_dictionary=False, write_statistics=False)
packed = whole(compression="snappy", use_dictionary=False, write_statistics=False)
encoded = whole(compression="none", use_dictionary=True, write_statistics=False)
(HERE / "t").unlink()


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def page(data, **fields):
    """The file with other numbers in the header of its first page: type, unpacked, packed, then those of the page itself."""
    at = 4

    def number():
        nonlocal at
        shift = value = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return (value >> 1) ^ -(value & 1)

    def expect(byte):
        nonlocal at
        assert data[at] == byte, (at, data[at], byte)
        at += 1

    expect(0x15); kind = number()
    expect(0x15); unpacked = number()
    expect(0x15); size = number()
    expect(0x2C if kind == 0 else 0x4C)
    expect(0x15); count = number()
    new = dict(unpacked=unpacked, size=size, count=count) | fields
    if "count" in fields:
        # The page gives up as many bytes as its header gains, so that it still ends where it did.
        new["size"] -= len(varint(new["count"])) - len(varint(count))
    header = bytes([0x15]) + varint(kind) + b"\x15" + varint(new["unpacked"]) + b"\x15" + varint(new["size"])
    header += bytes([0x2C if kind == 0 else 0x4C, 0x15]) + varint(new["count"])
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    return data[:4] + header + data[at:footer] + b"\x00" * max(0, at - 4 - len(header)) + data[footer:]


attacks = {
    "page-unpacked-huge": page(packed, unpacked=2**31 - 1),
    "page-unpacked-negative": page(packed, unpacked=-1),
    "page-unpacked-less": page(packed, unpacked=10),
    "page-size-huge": page(plain, size=1_000_000),
    "page-size-negative": page(plain, size=-5),
    "page-count-huge": page(plain, count=2**31 - 1),
    "page-count-negative": page(plain, count=-1),
    "dictionary-count-huge": page(encoded, count=2**31 - 1),
    "footer-huge": plain[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1",
    "footer-past-begin": plain[:-8] + struct.pack("<I", len(plain)) + b"PAR1",
    "footer-list-huge": b"PAR1" + b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07\x00" + struct.pack("<I", 10) + b"PAR1",
    "footer-deep": b"PAR1" + b"\x1c" * 100 + struct.pack("<I", 100) + b"PAR1",
    "footer-empty": b"PAR1" + struct.pack("<I", 0) + b"PAR1",
    "encrypted": plain[:-4] + b"PARE",
    "truncated": plain[: len(plain) // 2],
    "truncated-tail": plain[:-1],
    "hole": plain[:4] + b"\x00" * 60 + plain[64:],
}
for name, data in attacks.items():
    (ATTACKS / f"{name}.parquet").write_bytes(data)

texts = {
    "deep.jsonl": b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}\n",
    "twice.jsonl": b'{"text": "a", "text": "b"}\n',
    "huge-number.jsonl": b'{"input_ids": [1, 1e999]}\n',
    "huge-token.jsonl": b'{"input_ids": [1, 18446744073709551616]}\n',
    "invalid.jsonl": b'{"text": "\xff"}\n',
    "cut.json": b'[{"text": "a"}, {"text": "b"',
    "behind.json": b'[{"text": "a"}]{',
    "open-quote.csv": b'text,n\n"a,1\n',
    "few-cells.csv": b"text,n\na\n",
    "twice.csv": b"text,text\na,b\n",
    "utf-16.txt": "text".encode("utf-16"),
    "shape-huge.npy": b"\x93NUMPY\x01\x00\x76\x00"
    + f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({2**62}, 4), }}".encode().ljust(117) + b"\n",
}
for name, data in texts.items():
    (ATTACKS / name).write_bytes(data)

#!/usr/bin/env python3
"""Writes small sound files for each target into corpus/, for the fuzzer to begin with. Needs nothing but Python."""

import gzip
import json
import struct
from pathlib import Path

ROOT = Path(__file__).parent / "corpus"


def write(target, name, data):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


for code, size in [(8, 1), (9, 1), (11, 2), (12, 4), (13, 4), (14, 8)]:
    plain = bytes([0, 0, code, 2]) + struct.pack(">II", 2, 3) + bytes(range(6 * size))
    write("idx", f"type-{code:02x}", plain)
    write("idx", f"type-{code:02x}.gz", gzip.compress(plain, mtime=0))

for descr, size in [("|u1", 1), ("|b1", 1), ("<i2", 2), (">i4", 4), ("<u8", 8), ("<f2", 2), (">f4", 4), ("<f8", 8), ("|O", 8)]:
    for fortran, version in [(False, 1), (True, 2)]:
        header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (2, 3), }}\n".encode()
        start = b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header))
        write("npy", f"{descr[1:]}-{version}", start + header + bytes(6 * size))
header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}"
write("npy", "labels", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack("<3q", 0, 2, 1))

for settings, text in [
    (0, "x,colour,y\n1,red,0.5\n-2e3,green,7\n"),
    (4, "x,y\n1,a\n2,\"b, c\"\n3,a\n"),
    (8, "x,y\r\n1,2\r\n\r\n3,4\r\n"),
    (3, "a,1,2\nb,3,4\n"),
    (15, "7;1\n8;2\n"),
]:
    write("csv", f"table-{settings}", bytes([settings]) + text.encode())


def safetensors(tensors, metadata):
    header, data = {}, b""
    for name, dtype, shape, values in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


dense = [("fc1.weight", "F32", [2, 3], bytes(24)), ("fc1.bias", "F32", [2], bytes(8))]
layer = {"type": "dense", "units": 2, "bias": True, "activation": "relu", "initializer": "glorot_uniform", "bias_initializer": "zeros"}
kiln = {
    "version": 1,
    "recipe": "r",
    "dataset": "d",
    "model": {"input": [3], "layers": [layer]},
    "loss": "cross_entropy",
    "preprocess": {},
    "classes": ["a", "b"],
}
write("safetensors", "described", safetensors(dense, {"kiln": json.dumps(kiln)}))
write("safetensors", "plain", safetensors(dense, None))
write("safetensors", "half", safetensors([("0.weight", "F16", [2, 1], bytes(4)), ("0.bias", "BF16", [2], bytes(4))], None))

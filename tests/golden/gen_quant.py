#!/usr/bin/env python3
"""Writes quant.txt: blocks of every quantised GGUF type and their values as gguf-py decodes them.

    python3 -m venv v && v/bin/pip install gguf==0.19.0 numpy && v/bin/python gen_quant.py > quant.txt

One line a type: name, columns, raw bytes in hexadecimal, values as little-endian f32 in
hexadecimal. gguf-py belongs to the ggml project. Scales are chosen so that every value is finite;
codes are random with a fixed seed. Negative zeros are written as zeros.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

rng = np.random.default_rng(7)

# type, block bytes, block columns, byte offsets of f16 fields
TYPES = [
    (T.Q4_0, 18, 32, [0]), (T.Q4_1, 20, 32, [0, 2]),
    (T.Q5_0, 22, 32, [0]), (T.Q5_1, 24, 32, [0, 2]), (T.Q8_0, 34, 32, [0]),
    (T.Q4_K, 144, 256, [0, 2]), (T.Q5_K, 176, 256, [0, 2]), (T.Q6_K, 210, 256, [208]),
]
for kind, size, columns, halves in TYPES:
    blocks = 3 if columns == 32 else 2
    raw = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for at in halves:
        raw[:, at:at + 2] = rng.normal(0, 0.1, (blocks, 1)).astype("<f2").view(np.uint8)
    values = dequantize(raw.reshape(1, -1), kind).astype("<f4") + np.float32(0)
    print(kind.name, blocks * columns, raw.tobytes().hex(), values.tobytes().hex())

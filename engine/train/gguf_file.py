"""Read a GGUF v2/v3 file into torch tensors, and write a GGUF LoRA adapter.

What it does: metadata, tensor table, dequantisation of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1,
Q8_0 and Q6_K to float32.  What it does not: any other quantisation (named in the error), big-endian
files.  Block layouts: ggml's quants (block_q4_1, block_q8_0, ...), little-endian.

A model that was cut into parts (`split`) is joined on reading: give the folder of the parts.
"""
import glob
import hashlib
import os
import struct

import numpy as np
import torch

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}
STRING, ARRAY = 8, 9
# type id -> (name, elements per block, bytes per block)
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 14: ("Q6_K", 256, 210),
         30: ("BF16", 1, 2)}


def read_bytes(path):
    """The file's bytes; a folder is read as its files `*.part.*` joined in name order."""
    if os.path.isdir(path):
        parts = sorted(glob.glob(os.path.join(path, "*.part.*")))
        if not parts:
            raise ValueError(f"{path}: no *.part.* files in it")
        return b"".join(open(p, "rb").read() for p in parts)
    with open(path, "rb") as file:
        return file.read()


class Gguf:
    """metadata: dict; tensors: name -> (shape as [rows, columns], type id, byte offset)."""

    def __init__(self, path):
        self.path = path
        self.raw = read_bytes(path)
        self.at = 0
        if self.raw[:4] != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        self.at = 4
        version = self._take("I")
        if version not in (2, 3):
            raise ValueError(f"{path}: GGUF version {version} is not known")
        n_tensors, n_keys = self._take("Q"), self._take("Q")
        self.metadata = {}
        for _ in range(n_keys):
            key = self._string()
            self.metadata[key] = self._value(self._take("I"))
        self.tensors = {}
        for _ in range(n_tensors):
            name = self._string()
            shape = [self._take("Q") for _ in range(self._take("I"))]
            kind, offset = self._take("I"), self._take("Q")
            self.tensors[name] = (shape[::-1], kind, offset)
        align = self.metadata.get("general.alignment", 32)
        self.base = (self.at + align - 1) // align * align

    def _take(self, code):
        value = struct.unpack_from("<" + code, self.raw, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def _string(self):
        length = self._take("Q")
        text = self.raw[self.at:self.at + length].decode("utf-8", "surrogateescape")
        self.at += length
        return text

    def _value(self, kind):
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            inner, count = self._take("I"), self._take("Q")
            return [self._value(inner) for _ in range(count)]
        if kind not in SCALARS:
            raise ValueError(f"{self.path}: metadata type {kind} is not known")
        return self._take(SCALARS[kind])

    def tensor(self, name):
        """Tensor `name` dequantised: float32, shape [rows, columns] (rows = outputs)."""
        shape, kind, offset = self.tensors[name]
        if kind not in TYPES:
            raise ValueError(f"{self.path}: tensor {name} has type {kind}, which is not read here")
        label, per_block, size = TYPES[kind]
        count = int(np.prod(shape))
        start = self.base + offset
        end = start + count // per_block * size
        if end > len(self.raw):
            raise ValueError(f"{self.path}: tensor {name} lies past the end of the file")
        data = np.frombuffer(self.raw, np.uint8, end - start, start)
        return torch.from_numpy(DEQUANTISE[label](data).reshape(shape))

    def tensors_sha256(self):
        """Which weights are these? Names, types, shapes and both ends of all tensors: the same
        digest as core_hash_tensors in engine/adapter.c."""
        digest = hashlib.sha256()
        for name, (shape, kind, offset) in self.tensors.items():
            _, per_block, size = TYPES[kind]
            bytes_ = int(np.prod(shape)) // per_block * size
            start, ends = self.base + offset, min(bytes_, 4096)
            digest.update(name.encode("utf-8", "surrogateescape") + struct.pack("<I", kind))
            digest.update(struct.pack("<4Q", *(shape[::-1] + [1] * (4 - len(shape)))))
            digest.update(self.raw[start:start + ends])
            digest.update(self.raw[start + bytes_ - ends:start + bytes_])
        return digest.hexdigest()


def _f16(blocks, at):
    return blocks[:, at:at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed):
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q4_0(data):
    b = data.reshape(-1, 18)
    return _f16(b, 0) * (_nibbles(b[:, 2:]) - 8)


def _q4_1(data):
    b = data.reshape(-1, 20)
    return _f16(b, 0) * _nibbles(b[:, 4:]) + _f16(b, 2)


def _fifth_bits(b, at):
    word = b[:, at:at + 4].copy().view(np.uint32)
    return ((word >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float32) * 16


def _q5_0(data):
    b = data.reshape(-1, 22)
    return _f16(b, 0) * (_nibbles(b[:, 6:]) + _fifth_bits(b, 2) - 16)


def _q5_1(data):
    b = data.reshape(-1, 24)
    return _f16(b, 0) * (_nibbles(b[:, 8:]) + _fifth_bits(b, 4)) + _f16(b, 2)


def _q8_0(data):
    b = data.reshape(-1, 34)
    return _f16(b, 0) * b[:, 2:].view(np.int8).astype(np.float32)


def _q6_k(data):
    b = data.reshape(-1, 210)
    low, high = b[:, :128].reshape(-1, 2, 2, 32), b[:, 128:192].reshape(-1, 2, 32)
    scales = b[:, 192:208].view(np.int8).astype(np.float32)
    quants = np.empty((len(b), 2, 4, 32), np.float32)
    for j in range(4):
        nibble = low[:, :, j & 1] >> (4 * (j >> 1)) & 15
        quants[:, :, j] = (nibble | (high >> 2 * j & 3) << 4).astype(np.float32) - 32
    return _f16(b, 208) * (quants.reshape(-1, 16, 16) * scales[:, :, None]).reshape(-1, 256)


DEQUANTISE = {
    "F32": lambda d: d.view(np.float32).copy(),
    "F16": lambda d: d.view(np.float16).astype(np.float32),
    "BF16": lambda d: (d.view(np.uint16).astype(np.uint32) << 16).view(np.float32),
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q6_K": _q6_k,
}


def _put_string(text):
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _put_value(value):
    """A typed metadata value: text, bool, unsigned number, real, or bytes as an array of u8."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _put_string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, bytes):
        return struct.pack("<IIQ", ARRAY, 0, len(value)) + value
    return struct.pack("<If", 6, value)


def write_adapter(path, tensors, alpha, architecture="llama", keys=(), kind="lora"):
    """Write a GGUF v3 adapter (general.type=adapter, adapter.type=kind).

    tensors: name -> float tensor [rows, columns]: `X.lora_a` [rank, in], `X.lora_b` [out, rank] in
    f16, with X the name of the base model's tensor and its row order (so no permutation is left to
    do); others in f32.  The base's W becomes W + alpha / rank * B A.  keys: more (key, value) pairs.
    """
    keys = [("general.architecture", architecture), ("general.type", "adapter"),
            ("adapter.type", kind), *keys, ("adapter.lora.alpha", alpha)]
    head = b"".join(_put_string(k) + _put_value(v) for k, v in keys)
    table, body = b"", b""
    for name, value in tensors.items():
        half = name.endswith((".lora_a", ".lora_b"))
        value = value.detach().cpu().to(torch.float16 if half else torch.float32)
        raw = value.contiguous().numpy().tobytes()
        table += _put_string(name) + struct.pack("<I", value.dim())
        table += b"".join(struct.pack("<Q", n) for n in reversed(value.shape))
        table += struct.pack("<IQ", 1 if half else 0, len(body))
        body += raw + b"\0" * (-len(raw) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + head + table
    with open(path, "wb") as file:
        file.write(start + b"\0" * (-len(start) % 32) + body)

"""Adapter to GGUF, and the adapter merged into the weights as an engine would.

    python engine/train/export_gguf_lora.py STATE.pt MODEL.gguf adapter.gguf

writes the adapter of a training state (train_reader.py --state).  The names are those of
llama.cpp's converter: blk.N.attn_q.weight.lora_a / .lora_b, f16, adapter.lora.alpha.  The training
runs in the row order of the GGUF file (Q and K already permuted for neighbouring rotary pairs), so
B is written as it is.
"""
import copy
import hashlib
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gguf_file import TYPES, Gguf, write_adapter
from wrapper import VERSION


def base_keys(gguf, what):
    """Keys that say which weights an adapter belongs to."""
    meta = gguf.metadata
    return [("general.name", f"{meta.get('general.name', '')} {what}"),
            ("general.license", meta.get("general.license", "")),
            ("general.base_model.0.name", meta.get("general.name", "")),
            ("eidetic.base_tensors", gguf.tensors_sha256()),
            ("eidetic.base_type", TYPES[gguf.tensors["blk.0.attn_q.weight"][1]][0])]


def check_written(path, tensors):
    """Every tensor reads back as it was written; the file's size in bytes."""
    again = Gguf(path)
    for name, value in tensors.items():
        half = name.endswith((".lora_a", ".lora_b"))
        value = value.detach().cpu()
        if not torch.equal(again.tensor(name), value.half().float() if half else value.float()):
            raise ValueError(f"{path}: tensor {name} does not read back as it was written")
    return os.path.getsize(path)


def export(lora, gguf, path, examples=""):
    """Write adapter.gguf; its size in bytes.  Read back and compared before it counts as done."""
    keys = base_keys(gguf, "memory reader") + [("eidetic.prompt_version", str(VERSION))]
    if examples and os.path.exists(examples):
        with open(examples, "rb") as file:
            keys.append(("eidetic.examples_sha256", hashlib.sha256(file.read()).hexdigest()))
    tensors = lora.state()
    write_adapter(path, tensors, lora.alpha, gguf.metadata["general.architecture"], keys)
    return check_written(path, tensors)


def export_core(mixers, gguf, window, path, zero=False):
    """Write the mixers of a hybrid (hybrid.py) as an adapter of the kind "core", with the keys of
    engine/model_fading.c; its size in bytes.  zero: with every mixer's factor 0."""
    architecture = gguf.metadata["general.architecture"]
    layers = gguf.metadata[architecture + ".block_count"]
    kinds = bytes(int(i in mixers.layers) for i in range(layers))
    keys = base_keys(gguf, "fading memory") + [
        ("bmojo.layer_kinds", kinds), ("bmojo.window", window),
        ("bmojo.attention_window", 2 * window), ("bmojo.sinks", 4),
        ("bmojo.fading_residual", True), ("bmojo.tied", True), ("bmojo.ssm.kind", "gdn"),
        ("bmojo.ssm.conv_kernel", 4), ("bmojo.ssm.norm_eps", 1e-5)]
    tensors = mixers.gguf()
    if zero:
        tensors |= {n: torch.zeros_like(t) for n, t in tensors.items() if n.endswith("ssm_gate")}
    write_adapter(path, tensors, mixers.alpha, architecture, keys, kind="core")
    return check_written(path, tensors)


def fake_q8_0(w):
    """w through Q8_0 and back, as the engine rounds: blocks of 32, f16 scale = max / 127."""
    b = w.reshape(-1, 32)
    scale = (b.abs().amax(1, keepdim=True) / 127).half().float()
    q = torch.round(b / scale.clamp_min(1e-30)).clamp(-127, 127)
    return (q * scale).reshape(w.shape)


def fake_q4_1(w):
    """w through Q4_1 and back: blocks of 32, f16 scale = range / 15 and f16 minimum."""
    b = w.reshape(-1, 32)
    low = b.amin(1, keepdim=True)
    scale = (b.amax(1, keepdim=True) - low) / 15
    q = torch.round((b - low) / scale.clamp_min(1e-30)).clamp(0, 15)
    return (q * scale.half().float() + low.half().float()).reshape(w.shape)


def merged(model, lora, kind):
    """A float32 model whose linears are W + alpha/rank BA, through the quantisation `kind`."""
    round_trip = {"q8_0": fake_q8_0, "q4_1": fake_q4_1, "f32": lambda w: w}[kind]
    whole = copy.copy(model)
    whole.weight, whole.lora = dict(model.weight), None
    for name in lora.a:
        w = model.weight[name + ".weight"].float()
        w = w + lora.scale * lora.b[name].half().float() @ lora.a[name].half().float()
        whole.weight[name + ".weight"] = round_trip(w)
    return whole


if __name__ == "__main__":
    from llama import Llama, Lora
    state, base, out = sys.argv[1:4]
    base = Gguf(base)
    kept = torch.load(state, map_location="cpu", weights_only=True)["lora"]
    rank = next(v.shape[0] for n, v in kept.items() if n.endswith("lora_a"))
    lora = Lora(Llama(base), rank, 2.0 * rank, 0)
    with torch.no_grad():
        lora.load(kept)
    print(export(lora, base, out), "bytes")

"""A tiny random llama, a core adapter and a LoRA for it, and the logits of what they make of it.

usage: gen_core_adapter.py OUT_DIR
writes core_base.gguf, core_adapter.gguf and .logits (the hybrid of these two), core_lora.gguf and
.logits (the hybrid of all three)

By engine/train/hybrid.py in float32 on the matrices as the engine merges them (Q8_0); its chunked
mixer is checked against hybrid_reference.py first. Layer 1 of 2 is fading, W = 6, so the 40 tokens
see sinks, exact and fading slots, and lose some. The mixers start from the base's matrices, with
the LoRA too. *.logits: u32 L, V, i32 ids [L], f32 logits [L,V].
"""
import os
import struct
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "engine", "train")]
import hybrid_reference as ref
from export_gguf_lora import export, export_core, fake_q8_0
from gen_hybrid import gguf
from gguf_file import Gguf
from hybrid import Hybrid, Mixers, gdn
from llama import Lora

H, G, D, C, L, V, F, W, SEED = 4, 2, 16, 32, 40, 64, 48, 6, 11


def base(path):
    generator = torch.Generator().manual_seed(SEED)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    matrix = lambda rows, columns: normal(rows, columns) * columns ** -0.5
    tensors = {"token_embd.weight": normal(V, C), "output_norm.weight": 1 + 0.1 * normal(C)}
    for i in range(2):
        for name, value in [("attn_norm", 1 + 0.1 * normal(C)), ("attn_q", matrix(H * D, C)),
                            ("attn_k", matrix(G * D, C)), ("attn_v", matrix(G * D, C)),
                            ("attn_output", matrix(C, H * D)), ("ffn_norm", 1 + 0.1 * normal(C)),
                            ("ffn_gate", matrix(F, C)), ("ffn_up", matrix(F, C)),
                            ("ffn_down", matrix(C, F))]:
            tensors[f"blk.{i}.{name}.weight"] = value
    gguf(path, {"general.architecture": "llama", "general.name": "Tiny", "llama.block_count": 2,
                "llama.embedding_length": C, "llama.attention.head_count": H,
                "llama.attention.head_count_kv": G, "llama.attention.key_length": D,
                "llama.feed_forward_length": F,
                "llama.context_length": 128, "llama.attention.layer_norm_rms_epsilon": 1e-5,
                "llama.rope.dimension_count": D, "llama.rope.freq_base": 10000.0}, tensors)


def check_mixer():
    """The chunked form against the oracle's recurrence, several chunks long."""
    torch.manual_seed(SEED)
    u, p = torch.randn(200, C, dtype=torch.float64), {}
    for name, rows in [("q", H * D), ("k", G * D), ("v", G * D), ("g", H * D)]:
        p[f"{name}_proj.weight"] = torch.randn(rows, C, dtype=torch.float64) * C ** -0.5
        p[f"{name}_conv1d.weight"] = torch.randn(rows, 1, 4, dtype=torch.float64) * 0.5
    p["gk_proj.weight"], p["b_proj.weight"] = torch.randn(2, H, C, dtype=torch.float64)
    p["A_log"], p["dt_bias"] = torch.zeros(H, dtype=torch.float64), torch.full((H,), -3.0).double()
    q, k, v = ref._qkv(u, p, H, G, D)
    decay = -torch.nn.functional.softplus(u @ p["gk_proj.weight"].T + p["dt_bias"])
    # the oracle's layer with the identity behind the heads, against the same around ours
    p |= {"o_norm.weight": torch.ones(D).double(), "o_proj.weight": torch.eye(H * D).double()}
    want = ref.gdn(u, p, H, G, D)[0]
    ours = ref._out(gdn(q, k, v, decay, torch.sigmoid(u @ p["b_proj.weight"].T)), u, p, H, D, 1e-5)
    error = ((ours - want).abs().max() / want.abs().max()).item()
    print(f"mixer in chunks against the recurrence: {error:.1e}")
    assert error < 1e-9


class Merged(Hybrid):
    """With a LoRA merged into every linear but the mixers', as the engine rounds it."""

    def merge(self, lora):
        self.sums = {}
        for name, a in lora.a.items():
            both = lora.scale * lora.b[name].half().float() @ a.half().float()
            whole = self.weight[name + ".weight"] + both
            self.sums[name] = fake_q8_0(whole) if whole.shape[1] % 32 == 0 else whole

    def linear(self, layer, name, x):
        return torch.nn.functional.linear(x, self.sums[f"blk.{layer}.{name}"])


def write_logits(path, ids, logits):
    with open(path, "wb") as out:
        out.write(struct.pack("<2I", L, V) + ids.numpy().astype("<i4").tobytes())
        out.write(logits.numpy().astype("<f4").tobytes())


@torch.no_grad()
def main(folder):
    check_mixer()
    path = os.path.join(folder, "core_base.gguf")
    base(path)
    file = Gguf(path)
    model = Hybrid(file, window=W)
    model.mixers, model.rounded = Mixers(model, [1], 4, W, SEED), True
    generator = torch.Generator().manual_seed(SEED + 1)
    for _, name, value in model.mixers.names():
        if not name.endswith("lora_a"):
            value += 0.2 * torch.randn(value.shape, generator=generator)
        if name == "ssm_gate":
            value += 1
    export_core(model.mixers, file, W, os.path.join(folder, "core_adapter.gguf"))
    ids = torch.randint(0, V, (L,), generator=generator)
    hidden = model.stream(model.embed(ids))
    logits = model.logits(model.final(hidden))[:L]
    mixers, model.mixers = model.mixers, None
    window = model.logits(model.final(model.stream(model.embed(ids))))[:L]
    print(f"the mixers move logits by {(logits - window).abs().max().item():.2f} at most, "
          f"the largest is {logits.abs().max().item():.1f}")
    write_logits(os.path.join(folder, "core_adapter.logits"), ids, logits)
    lora, read = Lora(model, 4, 8.0, SEED), Merged(file, window=W)
    for value in lora.b.values():
        value += 0.2 * torch.randn(value.shape, generator=generator)
    export(lora, file, os.path.join(folder, "core_lora.gguf"))
    read.merge(lora)
    read.mixers, read.rounded = mixers, True
    both = read.logits(read.final(read.stream(read.embed(ids))))[:L]
    print(f"the LoRA moves logits by {(both - logits).abs().max().item():.2f} at most")
    write_logits(os.path.join(folder, "core_lora.logits"), ids, both)


if __name__ == "__main__":
    main(sys.argv[1])

"""Golden values of the mixers and of whole B'MOJO-F models, from hybrid_reference.py in float64.

usage: gen_hybrid.py OUT_DIR    writes mixers.bin, hybrid_{gdn,gka,mamba2}.gguf and .logits

mixers.bin, little-endian, no padding: 8 bytes "EIDMIX01", then per mixer u32 kind (0 gdn, 1 gka, 2
mamba2), C, H, G, D, K, L and f32 arrays: u [L,C] | projections [row,C] in the row order of mixer.h |
conv [q|k|v channels, K] | its bias | a [H] | dt_bias [H] | beta bias [H] | alpha bias [H] | skip [H]
| q_norm [D] | k_norm [D] | norm [H*D] | o_proj [C,H*D] | y [L,C] | state (S, or P then U per head,
[N,P]). Parts that a mixer has not are zero.

The models have the layers attention, B'MOJO-F (W = 6) on a Qwen3 base. *.logits: u32 L, V, i32 ids
[L], f32 logits [L,V].
"""
import struct
import sys

import torch

import hybrid_reference as ref

torch.manual_seed(7)
T = torch.float64
H, G, D, C, K, L, V, F, W = 4, 2, 16, 32, 4, 40, 64, 48, 6
EPS = 1e-6
R = lambda *shape, s=1.0: torch.randn(*shape, dtype=T).float().to(T) * s  # exact in f32
f32 = lambda t: t.to(torch.float32).to(T)


def mixer_weights(kind):
    small = lambda *shape: f32(R(*shape, s=C ** -0.5))
    common = {"A_log": f32(torch.log(1 + 15 * torch.rand(H, dtype=T))), "dt_bias": f32(R(H) - 3)}
    if kind == "mamba2":
        width = (2 * G + H) * D
        return common | {
            "in_proj.weight": small(2 * H * D + 2 * G * D + H, C), "conv1d.weight": f32(R(width, 1, K, s=0.5)),
            "conv1d.bias": f32(R(width, s=0.2)), "D": f32(1 + R(H, s=0.2)), "norm.weight": f32(1 + R(H * D, s=0.2)),
            "B_norm.weight": f32(1 + R(D, s=0.2)), "C_norm.weight": f32(1 + R(D, s=0.2)),
            "out_proj.weight": f32(R(C, H * D, s=(H * D) ** -0.5))}
    p = common | {
        "q_proj.weight": small(H * D, C), "k_proj.weight": small(G * D, C), "v_proj.weight": small(G * D, C),
        "q_conv1d.weight": f32(R(H * D, 1, K, s=0.5)), "k_conv1d.weight": f32(R(G * D, 1, K, s=0.5)),
        "v_conv1d.weight": f32(R(G * D, 1, K, s=0.5)), "g_proj.weight": small(H * D, C), "b_proj.weight": small(H, C),
        "o_norm.weight": f32(1 + R(D, s=0.2)), "o_proj.weight": f32(R(C, H * D, s=(H * D) ** -0.5))}
    if kind == "gdn":
        p["gk_proj.weight"] = small(H, C)
    else:
        p |= {"a_proj.weight": small(H, C), "b_proj.bias": f32(R(H)), "alpha_proj.weight": small(H, C),
              "alpha_proj.bias": f32(R(H))}
    return p


def run(kind, u, p):
    """y [L,C] and the state in the engine's layout."""
    if kind == "gdn":
        y, S = ref.gdn(u, p, H, G, D)
        return y, S.reshape(-1)
    if kind == "gka":
        y, P, U = ref.gka(u, p, H, G, D)
        return y, torch.stack([P, U], 1).reshape(-1)
    y, S = ref.mamba2(u, p, H, G, D)
    return y, S.transpose(1, 2).reshape(-1)


def named(kind, p):
    """Tensors under the names of the engine's GGUF scheme."""
    if kind == "mamba2":
        z, x, b, c, dt = p["in_proj.weight"].split([H * D, G * D, G * D, H * D, H])
        cx, cb, cc = p["conv1d.weight"][:, 0].split([G * D, G * D, H * D])
        bx, bb, bc = p["conv1d.bias"].split([G * D, G * D, H * D])
        t = {"ssm_q.weight": c, "ssm_k.weight": b, "ssm_v.weight": x, "ssm_g.weight": z, "ssm_decay.weight": dt,
             "ssm_conv_q.weight": cc, "ssm_conv_k.weight": cb, "ssm_conv_v.weight": cx, "ssm_conv_q.bias": bc,
             "ssm_conv_k.bias": bb, "ssm_conv_v.bias": bx, "ssm_d": p["D"], "ssm_norm.weight": p["norm.weight"],
             "ssm_q_norm.weight": p["C_norm.weight"], "ssm_k_norm.weight": p["B_norm.weight"],
             "ssm_o.weight": p["out_proj.weight"]}
    else:
        t = {f"ssm_{n}.weight": p[f"{n}_proj.weight"] for n in "qkvgo"}
        t |= {f"ssm_conv_{n}.weight": p[f"{n}_conv1d.weight"][:, 0] for n in "qkv"}
        t |= {"ssm_beta.weight": p["b_proj.weight"], "ssm_norm.weight": p["o_norm.weight"],
              "ssm_decay.weight": p["gk_proj.weight" if kind == "gdn" else "a_proj.weight"]}
        if kind == "gka":
            t |= {"ssm_beta.bias": p["b_proj.bias"], "ssm_alpha.weight": p["alpha_proj.weight"],
                  "ssm_alpha.bias": p["alpha_proj.bias"]}
    return t | {"ssm_a": -p["A_log"].exp(), "ssm_dt": p["dt_bias"]}


def write_mixers(path):
    with open(path, "wb") as out:
        out.write(b"EIDMIX01")
        put = lambda t: out.write(t.to(torch.float32).contiguous().numpy().astype("<f4").tobytes())
        for number, kind in enumerate(["gdn", "gka", "mamba2"]):
            p = mixer_weights(kind)
            t = named(kind, p)
            u = R(L, C)
            y, state = run(kind, u, p)
            out.write(struct.pack("<7I", number, C, H, G, D, K, L))
            width = (H + 2 * G) * D
            zeros = lambda n: torch.zeros(n, dtype=T)
            put(u)
            put(torch.cat([t[f"ssm_{n}.weight"] for n in ["q", "k", "v", "g", "decay", "beta", "alpha"]
                           if f"ssm_{n}.weight" in t]))
            put(torch.cat([t[f"ssm_conv_{n}.weight"] for n in "qkv"]))
            put(torch.cat([t.get(f"ssm_conv_{n}.bias", zeros(t[f"ssm_conv_{n}.weight"].shape[0])) for n in "qkv"]))
            put(t["ssm_a"])
            put(t["ssm_dt"])
            for name, size in [("ssm_beta.bias", H), ("ssm_alpha.bias", H), ("ssm_d", H), ("ssm_q_norm.weight", D),
                               ("ssm_k_norm.weight", D)]:
                put(t.get(name, zeros(size)))
            norm = t["ssm_norm.weight"]
            put(norm if norm.numel() == H * D else norm.repeat(H))
            put(t["ssm_o.weight"])
            put(y)
            put(state)


# --- whole models ------------------------------------------------------------------------------------------------------


def attention_weights():
    p = {f"{n}_proj.weight": f32(R(h * D, C, s=C ** -0.5)) for n, h in [("q", H), ("k", G), ("v", G)]}
    p["o_proj.weight"] = f32(R(C, H * D, s=(H * D) ** -0.5))
    return p | {"q_norm.weight": f32(1 + R(D, s=0.2)), "k_norm.weight": f32(1 + R(D, s=0.2))}


def gguf(path, keys, tensors):
    """GGUF v3 with F32 tensors (specification of the ggml project)."""
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()

    def value(v):
        if isinstance(v, bool):
            return struct.pack("<I?", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, float):
            return struct.pack("<If", 6, v)
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        if isinstance(v, tuple):
            return struct.pack("<IIQ", 9, 5, len(v)) + struct.pack(f"<{len(v)}i", *v)  # i32 array
        return struct.pack("<IIQ", 9, 0, len(v)) + bytes(v)  # u8 array

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for k, v in keys.items():
        head += text(k) + value(v)
    body = b""
    for name, t in tensors.items():
        head += text(name) + struct.pack("<I", t.dim()) + struct.pack(f"<{t.dim()}Q", *reversed(t.shape))
        head += struct.pack("<IQ", 0, len(body))
        data = t.to(torch.float32).contiguous().numpy().astype("<f4").tobytes()
        body += data + b"\0" * (-len(data) % 32)
    with open(path, "wb") as out:
        out.write(head + b"\0" * (-len(head) % 32) + body)


def model(kind, folder):
    embedding, final = R(V, C), f32(1 + R(C, s=0.2))
    position = torch.arange(L, dtype=T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2, dtype=T) / D)
    cos, sin = torch.cat([position, position], 1).cos(), torch.cat([position, position], 1).sin()
    tensors = {"token_embd.weight": embedding, "output_norm.weight": final}
    ids = torch.randint(0, V, (L,))
    x = embedding[ids]
    for i, fading in enumerate([False, True]):
        a = attention_weights()
        n1, n2 = f32(1 + R(C, s=0.2)), f32(1 + R(C, s=0.2))
        gate, up, down = f32(R(F, C, s=C ** -0.5)), f32(R(F, C, s=C ** -0.5)), f32(R(C, F, s=F ** -0.5))
        u = ref.rms(x, n1, EPS)
        t = {"attn_norm.weight": n1, "ffn_norm.weight": n2, "ffn_gate.weight": gate, "ffn_up.weight": up,
             "ffn_down.weight": down, "attn_output.weight": a["o_proj.weight"],
             "attn_q_norm.weight": a["q_norm.weight"], "attn_k_norm.weight": a["k_norm.weight"]}
        t |= {f"attn_{n}.weight": a[f"{n}_proj.weight"] for n in "qkv"}
        if fading:
            p = mixer_weights(kind)
            t |= named(kind, p)
            x = x + ref.bmojo(u, run(kind, u, p)[0], a, H, G, D, W, cos, sin, EPS)
        else:
            x = x + ref.bmojo(u, u, a, H, G, D, L, cos, sin, EPS)  # L <= W: plain causal attention
        u = ref.rms(x, n2, EPS)
        x = x + (torch.nn.functional.silu(u @ gate.T) * (u @ up.T)) @ down.T
        tensors |= {f"blk.{i}.{name}": value for name, value in t.items()}
    logits = ref.rms(x, final, EPS) @ embedding.T
    keys = {"general.architecture": "bmojo", "bmojo.base_architecture": "qwen3", "qwen3.block_count": 2,
            "qwen3.embedding_length": C, "qwen3.attention.head_count": H, "qwen3.attention.head_count_kv": G,
            "qwen3.attention.key_length": D, "qwen3.feed_forward_length": F, "qwen3.context_length": 128,
            "qwen3.attention.layer_norm_rms_epsilon": EPS, "qwen3.rope.freq_base": 10000.0,
            "bmojo.layer_kinds": [0, 1], "bmojo.window": W, "bmojo.tied": True, "bmojo.ssm.kind": kind,
            "bmojo.ssm.conv_kernel": K, "bmojo.ssm.norm_eps": EPS if kind == "gka" else 1e-5,
            "bmojo.ssm.iterations": 30, "bmojo.ssm.ridge": 0.02}
    gguf(f"{folder}/hybrid_{kind}.gguf", keys, tensors)
    with open(f"{folder}/hybrid_{kind}.logits", "wb") as out:
        out.write(struct.pack("<2I", L, V) + ids.numpy().astype("<i4").tobytes())
        out.write(logits.to(torch.float32).numpy().astype("<f4").tobytes())


if __name__ == "__main__":
    write_mixers(sys.argv[1] + "/mixers.bin")
    for each in ["gdn", "gka", "mamba2"]:
        model(each, sys.argv[1])

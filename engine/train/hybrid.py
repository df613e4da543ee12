"""The B'MOJO-F hybrid of a llama model in PyTorch: what the engine runs with `--core hybrid`.

Every layer sees the sinks and the last 2W tokens. In a fading layer the newer W of them are exact;
keys and values of the others are made of f = u + gate * mixer(u) (u: the layer's normed input).
The mixer is Gated DeltaNet (Yang et al. 2024) in chunked form. Its matrices are those of attention
(engine/prime.c: Stage 0) plus a low-rank part; convolution, decay, beta, norm and gate are its own.
Positions are contiguous over what a token sees, so towards the sinks a query stands at
min(i, S + 2W - 1). The weights are a GGUF's, in its row order.

Axis letters as in llama.py; N chunks of a mixer, W window, S sinks.
"""
import math

import torch
import torch.nn.functional as F

from export_gguf_lora import fake_q8_0
from llama import Llama, rotate

SINKS, KERNEL, CHUNK = 4, 4, 64
MATRICES = {"ssm_q": "attn_q", "ssm_k": "attn_k", "ssm_v": "attn_v", "ssm_o": "attn_output",
            "ssm_g": None}
NORM_EPS = 1e-5


def gdn(q, k, v, decay, beta):
    """Gated DeltaNet: q, k, v [T,H,D], decay [T,H] = log of the state's factor, beta [T,H]; f32.

    S <- e^decay S; e = v - S^T k; S <- S + beta k e^T; o = D^-1/2 S^T q with q, k of unit length.
    The chunked (WY) form: hybrid-core note, 1.4. Result [T,H,D].
    """
    tokens, heads, size = q.shape
    pad = -tokens % CHUNK

    def chunks(x):
        x = F.pad(x, (0, 0) * (x.dim() - 1) + (0, pad))
        return x.unflatten(0, (-1, CHUNK)).transpose(1, 2)          # [N,H,C,...]

    q = q * torch.rsqrt(q.square().sum(-1, keepdim=True) + 1e-6) / math.sqrt(size)
    k = k * torch.rsqrt(k.square().sum(-1, keepdim=True) + 1e-6)
    q, k, v, beta = chunks(q), chunks(k), chunks(v), chunks(beta)[..., None]
    total = chunks(decay).cumsum(-1)                                # [N,H,C]
    between = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    strict = (beta * between * (k @ k.mT)).tril(-1)
    eye = torch.eye(CHUNK, dtype=q.dtype, device=q.device)
    grown = total.exp()[..., None]
    both = torch.linalg.solve_triangular(eye + strict, beta * torch.cat([v, grown * k], -1),
                                         upper=False, unitriangular=True)
    own, from_state = both.split(size, -1)
    inside = between * (q @ k.mT)
    ahead = (total[..., -1:] - total).exp()[..., None] * k
    state = q.new_zeros(heads, size, size)
    out = []
    for n in range(q.shape[0]):
        new = own[n] - from_state[n] @ state
        out.append((grown[n] * q[n]) @ state + inside[n] @ new)
        state = grown[n, :, -1:] * state + ahead[n].mT @ new
    return torch.stack(out).transpose(1, 2).flatten(0, 1)[:tokens]


class Mixers(torch.nn.Module):
    """Parameters of the mixers of some layers: low-rank parts of the matrices, the rest whole.

    Names are those of the GGUF scheme (engine/model_fading.c); `blk.N.ssm_a` is kept as log(-a).
    """

    def __init__(self, model, layers, rank, window, seed):
        super().__init__()
        self.layers, self.rank, self.alpha = list(layers), rank, float(2 * rank)
        self.value = torch.nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        heads, size, width = model.heads, model.head_size, model.width

        def draw(*shape, scale):
            return scale * torch.randn(*shape, generator=generator)

        for i in self.layers:
            for name in MATRICES:
                rows, columns = primed(model, i, name).shape
                self._set(i, name + ".weight.lora_a", draw(rank, columns, scale=columns ** -0.5))
                self._set(i, name + ".weight.lora_b", torch.zeros(rows, rank))
            for name, count in (("q", heads), ("k", model.kv_heads), ("v", model.kv_heads)):
                tap = torch.zeros(count * size, KERNEL)
                tap[:, -1] = 1
                self._set(i, f"ssm_conv_{name}.weight", tap)
            self._set(i, "ssm_decay.weight", draw(heads, width, scale=0.02))
            self._set(i, "ssm_beta.weight", draw(heads, width, scale=0.02))
            # `eidetic prime` draws decays of a few tokens; these keep half a window to 16 windows
            life = window * 2.0 ** torch.empty(heads).uniform_(-1, 4, generator=generator)
            self._set(i, "ssm_dt", torch.full((heads,), math.log(math.expm1(0.01))))
            self._set(i, "ssm_log_a", (1 / (0.01 * life)).log())
            self._set(i, "ssm_norm.weight", torch.ones(size))
            self._set(i, "ssm_gate", torch.zeros(heads))

    def _set(self, layer, name, tensor):
        self.value[f"{layer}|{name}".replace(".", "-")] = torch.nn.Parameter(tensor)

    def get(self, layer, name):
        return self.value[f"{layer}|{name}".replace(".", "-")]

    def names(self):
        """(layer, name, parameter) of all."""
        for key, value in self.value.items():
            layer, name = key.split("|")
            yield int(layer), name.replace("-", "."), value

    def gguf(self):
        """GGUF name -> tensor: what the engine reads."""
        out = {}
        for layer, name, value in self.names():
            if name == "ssm_log_a":
                name, value = "ssm_a", -value.exp()
            out[f"blk.{layer}.{name}"] = value.detach()
        return out


def primed(model, layer, name):
    """The matrix that Stage 0 gives the mixer; gate rows (Wo^T + Wv with rows repeated)/2, Q8_0."""
    source = MATRICES[name]
    if source:
        return model.weight[f"blk.{layer}.{source}.weight"]
    key = f"blk.{layer}.ssm_g.weight"
    if key not in model.weight:
        output = model.weight[f"blk.{layer}.attn_output.weight"].float()
        value = model.weight[f"blk.{layer}.attn_v.weight"].float()
        gate = 0.5 * (output.T + value.repeat_interleave(model.heads // model.kv_heads, 0))
        gate = fake_q8_0(gate) if gate.shape[1] % 32 == 0 else gate
        model.weight[key] = gate.to(model.dtype)
    return model.weight[key]


class Hybrid(Llama):
    """window W: 2W live tokens are seen; mixers None: plain attention over them everywhere.

    full_layers: layers that see everything, for measurements. rounded: the mixers' matrices as the
    engine keeps them (Q8_0), without gradient.
    """

    def __init__(self, gguf, device="cpu", dtype=torch.float32, window=256):
        super().__init__(gguf, device, dtype)
        self.window, self.mixers, self.full_layers, self.rounded = window, None, (), False
        self.masks = {}

    # ---- what is seen ----

    def sight(self, tokens):
        """Additive masks for blocks of W queries, [N*G,H/G*W,S+keys]: sinks, then the 3W keys of a
        plain layer, or the 2W exact and 2W fading keys of a fading layer; and rotations."""
        if tokens not in self.masks:
            w = self.window
            at = torch.arange(tokens, device=self.device).view(-1, w, 1)
            first = torch.arange(0, tokens, w, device=self.device).view(-1, 1, 1)
            sinks = torch.arange(SINKS, device=self.device).view(1, 1, -1) <= at
            near = first - 2 * w + torch.arange(3 * w, device=self.device).view(1, 1, -1)

            def seen(keys, low, high):
                back = at - keys
                return (back >= low) & (back < high) & (keys >= SINKS)

            def mask(*parts):
                parts = torch.where(torch.cat((sinks, *parts), -1), 0.0, -math.inf).to(self.dtype)
                return parts.repeat(1, self.heads // self.kv_heads, 1) \
                    .repeat_interleave(self.kv_heads, 0)

            places = torch.arange(tokens, device=self.device)[None]
            self.masks[tokens] = {
                "plain": mask(seen(near, 0, 2 * w)),
                "fading": mask(seen(near[..., w:], 0, w), seen(near[..., :2 * w], w, 2 * w)),
                "turn": self.rotation(places),
                "turn_sinks": self.rotation(places.clamp(max=SINKS + 2 * w - 1))}
        return self.masks[tokens]

    def blocks(self, x, back, count):
        """Of x [T,G,D] for each block of W queries the `count` W rows that begin `back` W before
        it: [N,G,count W,D]."""
        w, number = self.window, x.shape[0] // self.window
        x = F.pad(x, (0, 0, 0, 0, back * w, 0))
        return x.unfold(0, count * w, w)[:number].transpose(2, 3)

    def attend_window(self, q, q_sinks, k, v, fading):
        """q, q_sinks [T,H,D] rotated for the window and for the sinks; k, v [T,G,D]; fading None or
        (k', v'). Result [T,H*D].

        One product for both: queries side by side in a head of size 2D, keys of sinks filled with
        zeros in the first half and the others in the second.
        """
        tokens, heads, size = q.shape
        groups, w = k.shape[1], self.window
        query = torch.cat([q, q_sinks], -1) / math.sqrt(size)
        query = query.view(-1, w, groups, heads // groups, 2 * size).permute(0, 2, 3, 1, 4)
        if fading is None:
            keys, values = self.blocks(k, 2, 3), self.blocks(v, 2, 3)
        else:
            keys = torch.cat([self.blocks(k, 1, 2), self.blocks(fading[0], 2, 2)], 2)
            values = torch.cat([self.blocks(v, 1, 2), self.blocks(fading[1], 2, 2)], 2)

        def with_sinks(sinks, others):
            sinks = sinks.transpose(0, 1)[None].expand(others.shape[0], -1, -1, -1)
            return torch.cat([sinks, others], 2).flatten(0, 1)

        keys = with_sinks(F.pad(k[:SINKS], (size, 0)), F.pad(keys, (0, size)))
        mask = self.sight(tokens)["plain" if fading is None else "fading"]
        weights = torch.baddbmm(mask, query.flatten(2, 3).flatten(0, 1), keys.mT).softmax(-1)
        out = weights @ with_sinks(v[:SINKS], values)
        return out.view(-1, groups, heads // groups, w, size).permute(0, 3, 1, 2, 4) \
            .reshape(tokens, heads * size)

    # ---- mixers ----

    def mixer_linear(self, layer, name, x):
        m = self.mixers
        a, b = m.get(layer, name + ".weight.lora_a"), m.get(layer, name + ".weight.lora_b")
        weight, scale = primed(self, layer, name), m.alpha / m.rank
        if self.rounded:
            whole = weight.float() + scale * b.half().float() @ a.half().float()
            return F.linear(x, (fake_q8_0(whole) if whole.shape[1] % 32 == 0 else whole).to(x.dtype))
        return F.linear(x, weight) + F.linear(F.linear(x, a.to(x.dtype)), scale * b.to(x.dtype))

    def mixer(self, layer, u):
        """mixer(u), u [T,C]: gated heads through the output projection."""
        m, tokens = self.mixers, u.shape[0]

        def convolved(name, count):
            x = self.mixer_linear(layer, "ssm_" + name, u)
            taps = m.get(layer, f"ssm_conv_{name}.weight").to(x.dtype)
            x = F.pad(x, (0, 0, KERNEL - 1, 0))
            x = F.silu(sum(x[j:j + tokens] * taps[:, j] for j in range(KERNEL)))
            return x.float().view(tokens, count, -1).repeat_interleave(self.heads // count, 1)

        q, k, v = (convolved(n, c) for n, c in (("q", self.heads), ("k", self.kv_heads),
                                                ("v", self.kv_heads)))
        delta = F.softplus(F.linear(u.float(), m.get(layer, "ssm_decay.weight"))
                           + m.get(layer, "ssm_dt"))
        decay = -m.get(layer, "ssm_log_a").exp() * delta
        beta = F.linear(u.float(), m.get(layer, "ssm_beta.weight")).sigmoid()
        o = F.rms_norm(gdn(q, k, v, decay, beta), (self.head_size,),
                       m.get(layer, "ssm_norm.weight"), NORM_EPS)
        gate = self.mixer_linear(layer, "ssm_g", u).view(tokens, self.heads, -1)
        o = o * F.silu(gate.float()) * m.get(layer, "ssm_gate")[:, None]
        return self.mixer_linear(layer, "ssm_o", o.flatten(1).to(u.dtype))

    # ---- passes ----

    def attention(self, layer, u):
        """Attention of one layer over its normed input u [T,C] (T a multiple of W): [T,H*D]."""
        tokens = u.shape[0]
        sight = self.sight(tokens)

        def heads(name, x, count):
            return self.linear(layer, name, x).view(tokens, count, -1)

        def turned(x, turn):
            return rotate(x[None], turn)[0]

        q = heads("attn_q", u, self.heads)
        k, v = heads("attn_k", u, self.kv_heads), heads("attn_v", u, self.kv_heads)
        k = turned(k, sight["turn"])
        if layer in self.full_layers:
            return F.scaled_dot_product_attention(
                turned(q, sight["turn"]).transpose(0, 1)[None], k.transpose(0, 1)[None],
                v.transpose(0, 1)[None], is_causal=True,
                enable_gqa=True)[0].transpose(0, 1).flatten(1)
        fading = None
        if self.mixers is not None and layer in self.mixers.layers:
            f = u + self.mixer(layer, u)
            fading = (turned(heads("attn_k", f, self.kv_heads), sight["turn"]),
                      heads("attn_v", f, self.kv_heads))
        return self.attend_window(turned(q, sight["turn"]), turned(q, sight["turn_sinks"]), k, v,
                                  fading)

    def block(self, i, x):
        u = self.norm(f"blk.{i}.attn_norm", x)
        x = x + self.linear(i, "attn_output", self.attention(i, u))
        h = self.norm(f"blk.{i}.ffn_norm", x)
        h = F.silu(self.linear(i, "ffn_gate", h)) * self.linear(i, "ffn_up", h)
        return x + self.linear(i, "ffn_down", h)

    def stream(self, x, first=0, last=None):
        """Residual stream [T,C] behind layers [first, last)."""
        for i in range(first, self.layers if last is None else last):
            x = self.block(i, x)
        return x

    def embed(self, ids):
        """[T',C], T' = T filled up to a multiple of W (behind: nothing sees what was added)."""
        ids = F.pad(ids, (0, -len(ids) % self.window))
        return self.weight["token_embd.weight"][ids]

    def final(self, x):
        return self.norm("output_norm", x)

    @torch.no_grad()
    def nll(self, ids):
        """Of each token behind the first, -log of its probability [T-1]."""
        hidden = self.final(self.stream(self.embed(ids)))[:len(ids) - 1]
        return torch.cat([F.cross_entropy(self.logits(part), want, reduction="none")
                          for part, want in zip(hidden.split(256), ids[1:].split(256))])

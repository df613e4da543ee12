"""Multi-query associative recall, small: fading and eidetic memory together against either alone.

    python engine/train/mqar.py

A stream of pairs (key, value), some keys often and most of them rarely, then questions about keys
that have left the window. Like MQAR (Arora et al. 2023), a pair being one step. The layer: one
softmax over the W newest pairs, over stored pairs (eidetic) and over one slot that holds what the
delta rule's state says of the question (fading; Yang et al. 2024). A pair that leaves the window is
stored if it is among the M that the state predicts worst then, |v - S^T k|^2; without a state, the
M newest different ones are. Every arm is trained by itself, with the same seeds. Prints accuracy on
fresh streams with 95 % intervals over streams (normal approximation).
"""
import argparse
import math

import torch
import torch.nn.functional as F

KEYS, VALUES, PAIRS, WINDOW, STORED, QUESTIONS, SIZE = 64, 64, 128, 16, 16, 16, 16


def streams(count, generator):
    """keys, values [count, PAIRS]; asked [count, QUESTIONS] keys seen before the last WINDOW only,
    and their values. Key r is drawn with weight 1 / (1 + r)."""
    weight = 1 / (1 + torch.arange(KEYS, dtype=torch.float))
    rank = torch.rand(count, KEYS, generator=generator).argsort(1)
    keys = rank.gather(1, torch.multinomial(weight.expand(count, -1), PAIRS, True,
                                            generator=generator))
    value_of = torch.randint(VALUES, (count, KEYS), generator=generator)
    old = F.one_hot(keys[:, :-WINDOW], KEYS).amax(1) * (1 - F.one_hot(keys[:, -WINDOW:], KEYS)
                                                        .amax(1))
    asked = torch.multinomial(old + 1e-9, QUESTIONS, generator=generator)
    return keys, value_of.gather(1, keys), asked, value_of.gather(1, asked)


class Layer(torch.nn.Module):
    def __init__(self, fading, eidetic):
        super().__init__()
        self.fading, self.eidetic = fading, eidetic
        self.key = torch.nn.Parameter(torch.randn(KEYS, SIZE) / math.sqrt(SIZE))
        self.value = torch.nn.Parameter(torch.randn(VALUES, SIZE) / math.sqrt(SIZE))
        self.sharpness = torch.nn.Parameter(torch.tensor(2.0))
        self.slot = torch.nn.Parameter(torch.tensor(0.0))        # score of the fading slot
        self.decay = torch.nn.Parameter(torch.tensor(5.0))
        self.beta = torch.nn.Parameter(torch.tensor(1.0))
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, keys, values, asked):
        k, v = F.normalize(self.key[keys], dim=-1), self.value[values]
        q = F.normalize(self.key[asked], dim=-1)
        state = k.new_zeros(len(k), SIZE, SIZE)
        misses = k.new_full((len(k), PAIRS - WINDOW), -math.inf)
        decay, beta = self.decay.sigmoid(), self.beta.sigmoid()
        for t in range(PAIRS if self.fading else 0):
            error = v[:, t] - decay * torch.einsum("bkv,bk->bv", state, k[:, t])
            state = decay * state + beta * k[:, t, :, None] * error[:, None]
            if t >= WINDOW:
                gone = t - WINDOW
                left = v[:, gone] - torch.einsum("bkv,bk->bv", state, k[:, gone])
                misses[:, gone] = left.square().sum(-1).detach()
        slots = [(k[:, -WINDOW:], v[:, -WINDOW:])]
        if self.eidetic:
            kept = self.select(keys[:, :-WINDOW], misses)[..., None].expand(-1, -1, SIZE)
            slots.append((k.gather(1, kept), v.gather(1, kept)))
        some_k, some_v = (torch.cat(part, 1) for part in zip(*slots))
        scores = self.sharpness.exp() * q @ some_k.mT
        said = some_v[:, None].expand(-1, QUESTIONS, -1, -1)
        if self.fading:
            scores = torch.cat([scores, self.slot.expand(*scores.shape[:2], 1)], -1)
            said = torch.cat([said, (q @ state)[:, :, None]], 2)
        out = torch.einsum("bqs,bqsv->bqv", scores.softmax(-1), said)
        return self.scale.exp() * out @ self.value.T

    def select(self, keys, misses):
        """Places of the STORED pairs of each stream: of every key its newest pair only."""
        later = (keys[:, :, None] == keys[:, None]).triu(1).any(-1)
        order = misses if self.fading else torch.arange(keys.shape[1]).expand(len(keys), -1)
        return order.float().masked_fill(later, -math.inf).topk(STORED, 1).indices


def train(fading, eidetic, steps, seed):
    torch.manual_seed(seed)
    layer, generator = Layer(fading, eidetic), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * 0.5 * (1 + math.cos(math.pi * step / steps))
        keys, values, asked, want = streams(32, generator)
        loss = F.cross_entropy(layer(keys, values, asked).flatten(0, 1), want.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return layer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("| memory beside the window | recall |\n| --- | --- |")
    for name, fading, eidetic in (("none", False, False), ("fading", True, False),
                                  ("eidetic", False, True), ("both", True, True)):
        layer = train(fading, eidetic, args.steps, args.seed)
        with torch.no_grad():
            keys, values, asked, want = streams(500, torch.Generator().manual_seed(args.seed + 99))
            right = (layer(keys, values, asked).argmax(-1) == want).float().mean(1)
        wide = 1.96 * right.std().item() / math.sqrt(len(right))
        print(f"| {name} | {right.mean():.3f} +- {wide:.3f} |", flush=True)


if __name__ == "__main__":
    main()

"""From segments to a batch: the engine's splice pattern (semantics, section 5) as tensors.

A row is a list of memory blocks and one live part.  Each block is encoded right behind the fixed
prefix, seeing the prefix and itself; it is *placed* where the layout says; live tokens see all
blocks that were there when they were (last) run, with ln(strength) as bias.

    layout B     prefix | blocks | user turn | header | answer        every live token sees blocks
    layout S     prefix | user turn | blocks | header | answer        header and answer see them
    mid-sentence prefix | blocks | user turn | header | answer so far | last 8 + rest of answer
                 block m came at answer token `since`: tokens from `since` on see it, older ones
                 were run before it came; their keys are shifted behind it.

Stated difference: with several mid-sentence blocks, older live tokens see an *earlier* block and
the prefix at their final distance, not at the distance of the moment in which they were run.
"""
import math
from dataclasses import dataclass, field

import torch

HIDDEN = 1 << 30


@dataclass
class Block:
    ids: list
    strength: float = 1.0
    since: int = 0          # index of the first live token that sees it


@dataclass
class Row:
    """blocks in the order of their placing; live = ids of user turn, header, answer.

    split: blocks are placed before live[split] (0: layout B; start of the header: layout S).
    labels: live index -> trained on (1) or not (0); empty outside training.
    """
    blocks: list
    live: list
    split: int = 0
    labels: list = field(default_factory=list)


class Batch:
    """Tensors of several rows, padded to one width on one device."""

    def __init__(self, rows, prefix_len, device, multiple=8):
        width = max(sum(len(b.ids) for b in r.blocks) + len(r.live) for r in rows)
        width = -(-width // multiple) * multiple
        ids, placed, encoded, owner, since, order, bias, labels, last = ([] for _ in range(9))
        for row in rows:
            memory = sum(len(b.ids) for b in row.blocks)
            r_ids, r_placed, r_encoded, r_owner, r_since, r_order, r_bias = ([] for _ in range(7))
            place = prefix_len + row.split
            for number, block in enumerate(row.blocks):
                n = len(block.ids)
                r_ids += block.ids
                r_placed += range(place, place + n)
                r_encoded += range(prefix_len, prefix_len + n)
                r_owner += [number + 1] * n
                r_since += [block.since] * n
                r_bias += [math.log(block.strength)] * n
                place += n
            n = len(row.live)
            first_seeing = min((b.since for b in row.blocks), default=0)
            r_ids += row.live
            places = [prefix_len + j + (memory if j >= row.split else 0) for j in range(n)]
            r_placed += places
            # tokens run before any block came saw the prefix from where they stood then
            r_encoded += [prefix_len + j if j < first_seeing else places[j] for j in range(n)]
            r_order = [-1] * memory + list(range(n))
            r_owner += [0] * n
            r_since += [0] * n
            r_bias += [0.0] * n
            r_labels = [0] * memory + (list(row.labels) or [0] * n)
            last.append(len(r_ids) - 1)
            pad = width - len(r_ids)
            ids.append(r_ids + [0] * pad)
            placed.append(r_placed + [prefix_len] * pad)
            encoded.append(r_encoded + [prefix_len] * pad)
            owner.append(r_owner + [-1] * pad)
            since.append(r_since + [0] * pad)
            order.append(r_order + [-1] * pad)
            bias.append(r_bias + [0.0] * pad)
            labels.append(r_labels + [0] * pad)

        def tensor(value, dtype=torch.int64):
            return torch.tensor(value, dtype=dtype).to(device, non_blocking=True)

        self.ids, self.placed, self.encoded = tensor(ids), tensor(placed), tensor(encoded)
        self.owner, self.since, self.order = tensor(owner), tensor(since), tensor(order)
        self.bias, self.labels = tensor(bias, torch.float32), tensor(labels)
        self.last = tensor(last)

    def mask(self, prefix_len):
        """Additive mask [B,1,T,P+T] f32."""
        rows, width = self.ids.shape
        device = self.ids.device
        mine, theirs = self.owner[:, :, None], self.owner[:, None, :]
        before = torch.ones(width, width, dtype=torch.bool, device=device).tril()[None]
        same = (mine == theirs) & before
        reads = (mine == 0) & (theirs > 0) & (self.order[:, :, None] >= self.since[:, None, :])
        own = torch.full((rows, width, width), -math.inf, device=device)
        own = own.masked_fill(same, 0.0)
        own = torch.where(reads, self.bias[:, None, :].expand_as(own), own)
        head = own.new_zeros(rows, width, prefix_len)
        return torch.cat([head, own], -1)[:, None]

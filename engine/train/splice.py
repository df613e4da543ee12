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

import numpy as np
import torch


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


FIELDS = ("ids", "placed", "encoded", "owner", "since", "order", "labels")


def pack(rows, prefix_len, multiple=8):
    """Rows padded to one width: name -> numpy array [B,T]; `bias` f32, `last` [B]."""
    width = max(sum(len(b.ids) for b in r.blocks) + len(r.live) for r in rows)
    width = -(-width // multiple) * multiple
    out = {name: np.zeros((len(rows), width), np.int32) for name in FIELDS}
    out["bias"] = np.zeros((len(rows), width), np.float32)
    out["last"] = np.zeros(len(rows), np.int32)
    out["placed"][:], out["encoded"][:] = prefix_len, prefix_len
    out["owner"][:], out["order"][:] = -1, -1
    for r, row in enumerate(rows):
        memory = sum(len(b.ids) for b in row.blocks)
        at, place = 0, prefix_len + row.split
        for number, block in enumerate(row.blocks):
            n = len(block.ids)
            here = slice(at, at + n)
            out["ids"][r, here] = block.ids
            out["placed"][r, here] = np.arange(place, place + n)
            out["encoded"][r, here] = np.arange(prefix_len, prefix_len + n)
            out["owner"][r, here] = number + 1
            out["since"][r, here] = block.since
            out["bias"][r, here] = math.log(block.strength)
            at, place = at + n, place + n
        n = len(row.live)
        here, index = slice(at, at + n), np.arange(n)
        places = prefix_len + index + np.where(index >= row.split, memory, 0)
        first_seeing = min((b.since for b in row.blocks), default=0)
        out["ids"][r, here] = row.live
        out["placed"][r, here] = places
        # tokens run before any block came saw the prefix from where they stood then
        out["encoded"][r, here] = np.where(index < first_seeing, prefix_len + index, places)
        out["owner"][r, here] = 0
        out["order"][r, here] = index
        if row.labels:
            out["labels"][r, here] = row.labels
        out["last"][r] = at + n - 1
    return out


class Batch:
    """Packed rows as tensors on one device."""

    def __init__(self, rows, prefix_len, device):
        self.take(pack(rows, prefix_len), device)

    @classmethod
    def of(cls, packed, device):
        batch = cls.__new__(cls)
        batch.take(packed, device)
        return batch

    def take(self, packed, device):
        for name, value in packed.items():
            tensor = torch.from_numpy(value).to(device)
            setattr(self, name, tensor if name == "bias" else tensor.long())

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

    def parts(self, prefix_len):
        """The batch in two: {"blocks", "live"}, each {ids, placed, encoded, labels [B,T],
        mask [B,1,T,P+S]}, S = blocks for the blocks, blocks + live for the live tokens."""
        mask = self.mask(prefix_len)[:, 0]
        blocks, live = self.owner > 0, self.owner == 0
        at_block, at_live = places(blocks), places(live)
        out = {}
        for name, at, seen in (("blocks", at_block, [(blocks, at_block)]),
                               ("live", at_live, [(blocks, at_block), (live, at_live)])):
            rows = torch.gather(mask, 1, at[:, :, None].expand(-1, -1, mask.shape[2]))
            columns = [rows[:, :, :prefix_len]]
            for member, where in seen:
                index = (prefix_len + where)[:, None].expand(-1, rows.shape[1], -1)
                absent = ~torch.gather(member, 1, where)
                columns.append(torch.gather(rows, 2, index).masked_fill(absent[:, None],
                                                                        -math.inf))
            out[name] = {key: torch.gather(getattr(self, key), 1, at)
                         for key in ("ids", "placed", "encoded", "labels")}
            out[name]["mask"] = torch.cat(columns, -1)[:, None]
        member = torch.gather(live, 1, at_live)
        out["live"]["labels"] = out["live"]["labels"] * member
        return out


def places(member):
    """Columns of the members of each row [B,T], padded behind with columns that are none."""
    width = max(1, int(member.sum(1).max()))
    return torch.argsort((~member).to(torch.int8), dim=1, stable=True)[:, :width]

"""The mean of two adapters of one base, tensor by tensor (model soups: M. Wortsman et al., 2022).

    python engine/train/mean_adapter.py MODEL.gguf A.gguf B.gguf OUT.gguf

Where the second was trained on from the first, the mean keeps most of what either knows.
"""
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from export_gguf_lora import export
from gguf_file import Gguf
from llama import Llama, Lora


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__.split("\n")[2].strip())
    base, (a, b) = Gguf(sys.argv[1]), (Gguf(path) for path in sys.argv[2:4])
    first = next(name for name in a.tensors if name.endswith("lora_a"))
    rank = a.tensor(first).shape[0]
    lora = Lora(Llama(base, "cpu", torch.float32), rank, 2.0 * rank, 0)
    with torch.no_grad():
        lora.load({name: 0.5 * (a.tensor(name) + b.tensor(name)) for name in lora.state()})
    print(export(lora, base, sys.argv[4]), "bytes")


if __name__ == "__main__":
    main()

"""Writes torch/: models of PyTorch's in files, and what PyTorch computed with them.

    python -m tests.witnesses.make_torch

Each model is saved by safetensors and by torch.save; the .npz has an input and its results.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

FOLDER = Path(__file__).with_name("torch")
# Arguments of torch.nn.LSTM(5, 6, …).
OPTIONS = {
    "stacked": {"num_layers": 2, "bidirectional": True},
    "bare": {"bias": False, "dtype": torch.float64},
    "projected": {"proj_size": 2, "batch_first": True},
}


class Tagger(torch.nn.Module):
    """An LSTM among other layers, as it mostly comes."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.embedding = torch.nn.Embedding(11, 5)
        self.encoder.rnn = torch.nn.LSTM(5, 6, **options)
        self.head = torch.nn.Linear(6, 3)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, options) in enumerate(OPTIONS.items()):
        torch.manual_seed(seed)
        model = Tagger(**options)
        state = model.state_dict()
        safetensors.torch.save_file(state, FOLDER / f"{name}.safetensors")
        torch.save({"model": state, "epoch": 3}, FOLDER / f"{name}.pt")
        rnn = model.encoder.rnn
        x = torch.randn(7, 2, 5, dtype=rnn.weight_ih_l0.dtype)
        with torch.no_grad():
            output, (h_n, c_n) = rnn(x)
        weights = {key: tensor.numpy() for key, tensor in rnn.state_dict().items()}
        results = {"x": x, "output": output, "h_n": h_n, "c_n": c_n}
        arrays = {key: tensor.numpy() for key, tensor in results.items()}
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays, **weights)


if __name__ == "__main__":
    main()

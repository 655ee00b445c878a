"""Writes onnx/: models that their own frameworks trained and exported, and what those computed.

    python -m tests.witnesses.make_onnx torch     # needs torch, onnx, onnxscript
    python -m tests.witnesses.make_onnx keras     # needs tensorflow, tf2onnx

For NAME.onnx, NAME.npz has the inputs under the names of the model's inputs, and what the framework
itself gave for them, as output_0, output_1, … Reading them needs neither framework.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("onnx")
STEPS, BATCH, LENGTH, WORDS, CLASSES = 60, 16, 12, 20, 3


def task(rng: np.random.Generator, batch: int, length: int) -> tuple[Any, Any]:
    """Sequences of words, and which third of the vocabulary has most of them."""
    words = rng.integers(1, WORDS, (batch, length))
    counts = np.stack([(words % CLASSES == k).sum(1) for k in range(CLASSES)], 1)
    return words, counts.argmax(1)


def forget_paths(path: Path) -> None:
    """Drop the stack traces that torch writes beside each node: they name this machine's files."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(model, path)


def make_torch() -> None:
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    class Classifier(nn.Module):
        """Words -> classes, by two bidirectional layers, batch first."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, 6)
            self.lstm = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
            self.linear = nn.Linear(16, CLASSES)

        def forward(self, words: Any) -> Any:
            output, _ = self.lstm(self.embedding(words))
            return torch.log_softmax(self.linear(output.mean(1)), -1)

    class Ragged(nn.Module):
        """Sequences of several lengths, with an initial state and all that an LSTM returns."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, 2)

        def forward(self, x: Any, lengths: Any, h_0: Any, c_0: Any) -> Any:
            packed = pack_padded_sequence(x, lengths)
            output, (h_n, c_n) = self.lstm(packed, (h_0, c_0))
            return pad_packed_sequence(output)[0], h_n, c_n

    def train(model: Any, loss_of: Any) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
        print(f"{type(model).__name__}: loss {loss.item():.3f}")

    def keep(name: str, inputs: dict[str, Any], outputs: Any) -> None:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        arrays |= {f"output_{k}": o.detach().numpy() for k, o in enumerate(outputs)}
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
        forget_paths(FOLDER / f"{name}.onnx")

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    classifier = Classifier()

    def loss_of_classes() -> Any:
        words, classes = task(rng, BATCH, LENGTH)
        return nn.functional.nll_loss(classifier(torch.tensor(words)), torch.tensor(classes))

    train(classifier, loss_of_classes)
    words = torch.tensor(task(rng, 5, 9)[0])
    any_size = torch.export.Dim("batch"), torch.export.Dim("steps")
    torch.onnx.export(
        classifier.eval(), (words,), FOLDER / "torch_classifier.onnx", dynamo=True,
        external_data=False, input_names=["words"],
        dynamic_shapes=({0: any_size[0], 1: any_size[1]},),
    )  # fmt: skip
    keep("torch_classifier", {"words": words}, classifier(words))

    ragged = Ragged()

    def loss_of_ragged() -> Any:
        x = torch.randn(7, 4, 4)
        zeros = torch.zeros(2, 4, 5)
        output, *_ = ragged(x, torch.tensor([7, 6, 4, 1]), zeros, zeros)
        return (output[..., :4] - x).square().mean()

    train(ragged, loss_of_ragged)
    inputs = {
        "x": torch.randn(7, 3, 4), "lengths": torch.tensor([7, 4, 2]),
        "h_0": torch.randn(2, 3, 5), "c_0": torch.randn(2, 3, 5),
    }  # fmt: skip
    torch.onnx.export(
        ragged.eval(), tuple(inputs.values()), FOLDER / "torch_ragged.onnx", dynamo=False,
        input_names=list(inputs), do_constant_folding=False,
        dynamic_axes={"x": {0: "T", 1: "B"}, "lengths": {0: "B"}, "h_0": {1: "B"}, "c_0": {1: "B"}},
    )  # fmt: skip
    keep("torch_ragged", inputs, ragged(*inputs.values()))


def make_keras() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whose export finds the LSTMs again (tf2onnx)
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    words = keras.Input((None,), dtype="int32", name="words")
    x = keras.layers.Embedding(WORDS, 6)(words)
    x = keras.layers.Bidirectional(keras.layers.LSTM(8, return_sequences=True))(x)
    x = keras.layers.LSTM(7, go_backwards=True)(x)
    model = keras.Model(words, keras.layers.Dense(CLASSES, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    given, classes = task(rng, BATCH * STEPS, LENGTH)
    history = model.fit(given.astype(np.int32), classes, BATCH, epochs=2, verbose=0)
    print(f"Keras: loss {history.history['loss'][-1]:.3f}")
    model.export(FOLDER / "keras_classifier.onnx", format="onnx", verbose=False)
    given = task(rng, 5, 9)[0].astype(np.int32)
    np.savez_compressed(
        FOLDER / "keras_classifier.npz", words=given, output_0=np.asarray(model(given))
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    {"torch": make_torch, "keras": make_keras}[sys.argv[1]]()

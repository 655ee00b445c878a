"""A small training job: what the tests of training run, also in processes that they kill.

As a program, ``python -m tests.training_job --train VARIANT STEPS CHECKPOINT`` prints the number of
each step. ``python -m tests.training_job --killed TIMES CHECKPOINT`` trains in forked processes
that are killed at random times, each one going on from the checkpoint that the one before left, and
prints after each kill which step the checkpoint holds and a hash of all that is in it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import checkpoints
from fastlstm.layers import Dropout, Embedding, Linear
from fastlstm.losses import softmax_cross_entropy
from fastlstm.lstm import LSTM
from fastlstm.optim import SGD, Adam, AdamW
from fastlstm.parameters import Parameters
from fastlstm.schedules import cosine
from fastlstm.training import History, Trainer
from tests.support import Array, State, assert_same_bits

SYMBOLS, BATCH, WINDOW = 7, 3, 5
STEPS = 200  # of a whole run
Batch = tuple[Array, Array]


class Network:
    """Embedding, two LSTM layers with dropout between them, dropout, Linear."""

    def __init__(self) -> None:
        self.embedding = Embedding(SYMBOLS, 4, rng=0)
        self.lstm = LSTM(4, 8, 2, dropout=0.25, rng=1)
        self.dropout = Dropout(0.25)
        self.head = Linear(8, SYMBOLS, rng=2)
        self.layers = {"embedding": self.embedding, "lstm": self.lstm, "head": self.head}

    def parameters(self) -> Parameters:
        return Parameters.join({name: layer.parameters() for name, layer in self.layers.items()})

    def loss_and_grads(
        self, batch: Batch, state: State | None, rng: np.random.Generator
    ) -> tuple[float, dict[str, Array], State]:
        embedded, embedding_tape = self.embedding.forward(batch[0])
        output, state, lstm_tape = self.lstm.forward(embedded, state, rng=rng)
        output, dropout_tape = self.dropout.forward(output, rng)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = softmax_cross_entropy(logits, batch[1])
        grads: dict[str, dict[str, Array]] = {}
        d_output, grads["head"] = self.head.backward(head_tape, d_logits)
        d_output, _ = self.dropout.backward(dropout_tape, d_output)
        d_embedded, _, grads["lstm"] = self.lstm.backward(lstm_tape, d_output)
        _, grads["embedding"] = self.embedding.backward(embedding_tape, d_embedded)
        named = {f"{layer}.{n}": g for layer, part in grads.items() for n, g in part.items()}
        return loss, named, state

    def loss(self, batch: Batch) -> float:
        output, _ = self.lstm(self.embedding(batch[0]))
        return softmax_cross_entropy(self.head(output), batch[1])[0]


def batches(count: int = 13, seed: int = 3) -> list[Batch]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(SYMBOLS, size=(count, 2, WINDOW, BATCH))
    return [(inputs, targets) for inputs, targets in ids]


def build(variant: str, **options: Any) -> tuple[Network, Trainer]:
    """A network and a Trainer: "carried", "shuffled" or "stopping"."""
    network = Network()
    parameters = network.parameters()
    held_out = batches(1, seed=4)[0]
    if variant == "carried":
        optimiser: Any = Adam(parameters, 1e-2)
        options |= {"carry_state": True, "schedule": cosine(200, warmup=20), "max_norm": 0.5}
    elif variant == "shuffled":
        optimiser = AdamW(parameters, 1e-2)
        options |= {"shuffle": True, "validate": lambda: network.loss(held_out)}
    else:
        optimiser = SGD(parameters, 0.5, momentum=0.9, nesterov=True)
        options |= {"validate": lambda: network.loss(held_out), "validate_every": 9, "patience": 15}
    return network, Trainer(network, optimiser, seed=5, progress=False, **options)


@functools.cache
def uninterrupted(variant: str, steps: int = STEPS) -> tuple[dict[str, Array], History]:
    network, trainer = build(variant)
    history = trainer.fit(batches(), steps=steps)
    return network.parameters().state_dict(), history


def resumed(variant: str, path: Path, steps: int = STEPS) -> tuple[Network, History]:
    network, trainer = build(variant)
    trainer.resume(path)
    return network, trainer.fit(batches(), steps=steps)


def assert_same_weights(actual: Any, expected: dict[str, Array]) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert_same_bits(actual[name], array, name)


def fingerprint(checkpoint: checkpoints.Checkpoint) -> str:
    """A hash of everything in a checkpoint."""
    run = checkpoint.run
    digest = hashlib.sha256()
    for group in (checkpoint.parameters, checkpoint.optimiser, run.best_parameters):
        for name in sorted(group):
            digest.update(name.encode() + group[name].tobytes())
    for array in run.carried or ():
        digest.update(array.tobytes())
    place = (run.epoch, run.index, run.best, run.waited, run.history, run.rng.bit_generator.state)
    digest.update(repr(place).encode())
    return digest.hexdigest()


def train(variant: str, steps: int, checkpoint: Path) -> None:
    def report(step: int, _: float) -> None:
        print(step, flush=True)
        time.sleep(0.001)

    _, trainer = build(variant, checkpoint=checkpoint, checkpoint_every=7, on_step=report)
    trainer.fit(batches(), steps=steps)


def be_killed(times: int, checkpoint: Path) -> None:
    rng = random.Random(6)
    for _ in range(times):
        kill_while_saving(checkpoint, rng.uniform(0.0, 0.03))
        loaded = checkpoints.load(checkpoint)
        print(loaded.run.step, fingerprint(loaded), flush=True)


def kill_while_saving(checkpoint: Path, seconds: float) -> None:
    """Go on in a fork that saves at every step; kill it so long after the first time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _, trainer = build(
                "carried",
                checkpoint=checkpoint,
                checkpoint_every=1,
                on_step=lambda *_: os.write(writing, b"."),
            )
            if checkpoint.exists():
                trainer.resume(checkpoint)
            trainer.fit(batches(), steps=100_000)
        finally:
            os._exit(1)
    for _ in range(2):  # the first step is saved before the second one begins
        os.read(reading, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended before it was killed"
    os.close(reading)
    os.close(writing)


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        train(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    elif sys.argv[1] == "--killed":
        be_killed(int(sys.argv[2]), Path(sys.argv[3]))

"""A model of characters in torch, one line swapped: ``python -m benchmarks.in_torch --threads 2``.

Trains the same network twice from the same weights, on the same batches: Embedding, LSTM, Linear,
cross-entropy and Adam, all of them torch's, and then once more with fastlstm.interop.torch.LSTM for
the LSTM. Each lives in a process of its own and they take turns, so that a busy neighbour meets
both. Prints both curves and both times, and exits with 1 where the curves part.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.workers import thread_pools
from fastlstm.tasks.corpus import DEFAULT_CORPUS, CorpusError, default_corpus, read_corpus

TORCHS, OURS = "torch.nn.LSTM", "fastlstm.interop.torch.LSTM"
# Largest difference of the losses at any step, over torch's.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """What is trained, and on which text: the name of a file, or none for the default corpus."""

    text: str | None = None
    hidden_size: int = 128
    num_layers: int = 1
    batch_size: int = 32
    length: int = 64
    learning_rate: float = 2e-3
    threads: int = 1
    turn: int = 10  # steps

    def read(self) -> str:
        return default_corpus() if self.text is None else read_corpus(self.text)


class Training:
    """A network on its way through the text; state is carried from batch to batch."""

    def __init__(self, layer: str, settings: Settings) -> None:
        import torch

        import fastlstm

        torch.set_num_threads(settings.threads)
        fastlstm.set_num_threads(settings.threads)
        if layer == TORCHS:
            from torch.nn import LSTM
        else:
            from fastlstm.interop.torch import LSTM

        text = settings.read()
        characters = sorted(set(text))
        index = {character: k for k, character in enumerate(characters)}
        ids = torch.tensor([index[character] for character in text])
        column = len(ids) // settings.batch_size
        self.columns = ids[: column * settings.batch_size].view(settings.batch_size, column).t()
        self.length, self.at, self.state = settings.length, 0, None

        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(len(characters), settings.hidden_size)
        self.lstm = LSTM(settings.hidden_size, settings.hidden_size, settings.num_layers)
        self.head = torch.nn.Linear(settings.hidden_size, len(characters))
        layers: tuple[Any, ...] = (self.embedding, self.lstm, self.head)
        self.parameters = [parameter for layer in layers for parameter in layer.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, settings.learning_rate)
        self.loss = torch.nn.CrossEntropyLoss()

    def step(self) -> float:
        if self.at + self.length + 1 > len(self.columns):
            self.at, self.state = 0, None
        x = self.columns[self.at : self.at + self.length]
        targets = self.columns[self.at + 1 : self.at + self.length + 1]
        self.at += self.length
        output, (h, c) = self.lstm(self.embedding(x), self.state)
        self.state = h.detach(), c.detach()
        loss = self.loss(self.head(output).flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def curves(settings: Settings, steps: int) -> tuple[list[float], list[float]]:
    """Losses with torch's layer and with ours, in this process."""
    pair = Training(TORCHS, settings), Training(OURS, settings)
    losses = [[training.step() for _ in range(steps)] for training in pair]
    return losses[0], losses[1]


def parted(theirs: list[float], ours: list[float]) -> float:
    """Largest difference of two curves at any step, over the first one's loss there."""
    return max(abs(b - a) / a for a, b in zip(theirs, ours, strict=True))


# --- side by side ---------------------------------------------------------------------------------

_training: Training | None = None  # of a process that trains


def _begin(layer: str, settings: Settings) -> None:
    global _training
    _training = Training(layer, settings)
    _training.lstm(_training.embedding(_training.columns[:2]))  # what is loaded at a first call


def _steps(count: int) -> tuple[list[float], float]:
    assert _training is not None
    start = time.perf_counter()
    losses = [_training.step() for _ in range(count)]
    return losses, (time.perf_counter() - start) / count


def compare(settings: Settings, steps: int) -> dict[str, tuple[list[float], list[float]]]:
    """Each layer's losses, and its seconds a step in each turn."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack, thread_pools(settings.threads):
        pools = {
            layer: stack.enter_context(
                ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(layer, settings))
            )
            for layer in (TORCHS, OURS)
        }
        for turn in range(-(-steps // settings.turn)):
            for layer in list(pools)[:: 1 if turn % 2 else -1]:
                losses, seconds = pools[layer].submit(_steps, settings.turn).result()
                curve, times = found.setdefault(layer, ([], []))
                curve += losses
                times.append(seconds)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--text", metavar="FILE", help=f"UTF-8 (default: {DEFAULT_CORPUS}, which Python brings)")
    add("--steps", type=int, default=200, metavar="N", help="(default: 200)")
    for name in ("threads", "hidden_size", "num_layers", "batch_size", "length"):
        default = getattr(Settings, name)
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=int, default=default, metavar="N", help=f"(default: {default})")
    arguments = parser.parse_args(argv)
    try:
        Settings(arguments.text).read()
    except CorpusError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = vars(parse(argv))
    steps = arguments.pop("steps")
    settings = Settings(**arguments)
    found = compare(settings, steps)
    (theirs, slow), (ours, fast) = found[TORCHS], found[OURS]
    print(f"{'step':>6} {TORCHS:>16} {OURS:>30}   loss, nats a character")
    for k in sorted({*range(0, len(theirs), max(1, len(theirs) // 8)), len(theirs) - 1}):
        print(f"{k:>6} {theirs[k]:>16.6f} {ours[k]:>30.6f}")
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    print(
        f"{'ms':>6} {1e3 * statistics.median(slow):>16.2f} {1e3 * statistics.median(fast):>30.2f}"
        f"   a step, threads: {settings.threads}; ratio {ratio:.2f}"
    )
    apart = parted(theirs, ours)
    print(f"largest difference of the losses over {len(theirs)} steps: {apart:.1e}")
    return 0 if apart <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())

"""The adding problem, LSTM against plain RNN: ``python -m benchmarks.quality.adding``.

A sequence has T steps of two numbers: a value from U(0, 1), and a mark, which is 1 at one random
step of the first half and at one of the second, and 0 elsewhere. After the last step the network
has to give the sum of the two marked values, which it has to keep for up to T steps (Hochreiter &
Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015). Who always says 1 has a mean squared
error of 1/6: the variance of the sum.

Both networks are one layer of the same width and a Linear on its last output, with the same data,
steps, batches, optimiser, learning rate and clipping. There is no curriculum: all sequences have T
steps from the first batch on. The LSTM's gates start as Tallec & Ollivier 2018 have it for a known
T: biases of the forget gates log(u), u from U(1, T - 1), and those of the input gates the negative
of that, so that its cells forget after all times up to T from the start. A plain RNN has no gates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import init
from fastlstm.layers import Linear
from fastlstm.losses import mean_squared_error
from fastlstm.lstm import LSTM
from fastlstm.optim import Adam
from fastlstm.parameters import Parameters
from fastlstm.rnn import RNN
from fastlstm.training import Trainer

Array = NDArray[Any]
Batch = tuple[Array, Array]

BASELINE = 1 / 6
NETWORKS = ("LSTM", "plain RNN")
TEST_SEQUENCES = 1000


@dataclass(frozen=True)
class Settings:
    """What a run is, besides its network and its seed."""

    length: int = 200
    hidden_size: int = 64
    batch_size: int = 50
    steps: int = 2000
    learning_rate: float = 3e-3
    max_norm: float = 1.0
    validate_every: int = 100


def draw(rng: np.random.Generator, length: int, batch: int) -> Batch:
    """Sequences (T, B, 2) and their sums (B, 1), float32."""
    x = np.zeros((length, batch, 2), np.float32)
    x[..., 0] = rng.random((length, batch), dtype=np.float32)
    each = np.arange(batch)
    x[rng.integers(0, length // 2, batch), each, 1] = 1
    x[rng.integers(length // 2, length, batch), each, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, np.newaxis]


class Batches(Sequence[Batch]):
    """Fresh sequences for every step, each batch drawn from (seed, its number)."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng([self._seed, index])
        return draw(rng, self._settings.length, self._settings.batch_size)


class Adder:
    """A recurrent layer, and a Linear on its last output; what the Trainer takes for a model."""

    def __init__(
        self, network: str, hidden_size: int, length: int, seed: int, dtype: Any = np.float32
    ) -> None:
        rng = np.random.default_rng(seed)
        layer: Any = LSTM if network == "LSTM" else RNN
        self.recurrent = layer(2, hidden_size, dtype=dtype, rng=rng)
        self.head = Linear(hidden_size, 1, dtype=dtype, rng=rng)
        parts = {"recurrent": self.recurrent.parameters(), "head": self.head.parameters()}
        self._parameters = Parameters.join(parts)
        if network == "LSTM":
            init.chrono(self.recurrent, length, rng)

    def parameters(self) -> Parameters:
        return self._parameters

    def __call__(self, x: Array) -> Array:
        output, _ = self.recurrent(x)
        return self.head(output[-1])

    def loss_and_grads(
        self, batch: Batch, _state: None, _rng: np.random.Generator
    ) -> tuple[float, dict[str, Array], None]:
        """Mean squared error of a batch, and its gradients."""
        x, target = batch
        output, _, tape = self.recurrent.forward(x)
        prediction, head_tape = self.head.forward(output[-1])
        loss, d_prediction = mean_squared_error(prediction, target)
        d_output = np.zeros_like(output)
        d_output[-1], head_grads = self.head.backward(head_tape, d_prediction)
        _, _, recurrent_grads = self.recurrent.backward(tape, d_output)
        grads = {f"recurrent.{name}": grad for name, grad in recurrent_grads.items()}
        return loss, grads | {f"head.{name}": grad for name, grad in head_grads.items()}, None


@dataclass(frozen=True)
class Result:
    """One network trained from one seed, with its error on sequences that it never saw."""

    network: str
    seed: int
    parameters: int
    saying_one: float  # the error, on the same sequences, of who always says 1
    error: float  # at the end
    curve: list[tuple[int, float]]  # steps done, error then
    seconds: float


def train(network: str, settings: Settings, seed: int) -> Result:
    model = Adder(network, settings.hidden_size, settings.length, seed)
    x, target = draw(np.random.default_rng([seed, settings.steps]), settings.length, TEST_SEQUENCES)

    def test() -> float:
        return mean_squared_error(model(x), target)[0]

    trainer = Trainer(
        model,
        Adam(model.parameters(), settings.learning_rate),
        max_norm=settings.max_norm,
        validate=test,
        validate_every=settings.validate_every,
        progress=False,
    )
    start = time.perf_counter()
    history = trainer.fit(Batches(settings, seed), steps=settings.steps)
    seconds = time.perf_counter() - start
    return Result(
        network=network,
        seed=seed,
        parameters=sum(array.size for array in model.parameters().values()),
        saying_one=float(np.mean((target - 1) ** 2)),
        error=test(),
        curve=history.validations,
        seconds=seconds,
    )


def print_table(settings: Settings, results: list[Result]) -> None:
    print(f"\nadding problem, T = {settings.length}, {settings.steps} steps of", end=" ")
    print(f"{settings.batch_size} sequences; mean squared error on {TEST_SEQUENCES} others,")
    print(f"and of always saying 1 on the same ones ({BASELINE:.4f} in the mean)\n")
    print(f"{'':<10} {'parameters':>10} {'seed':>5} {'error':>9} {'saying 1':>9} {'seconds':>8}")
    for result in results:
        print(
            f"{result.network:<10} {result.parameters:>10} {result.seed:>5} "
            f"{result.error:>9.5f} {result.saying_one:>9.5f} {result.seconds:>8.0f}"
        )
    for network in NETWORKS:
        errors = [result.error for result in results if result.network == network]
        if len(errors) > 1:
            print(f"{network:<10} {'median':>16} {statistics.median(errors):>9.5f}")


def plot(path: Path, settings: Settings, results: list[Result]) -> None:
    """Draw the error against the step. matplotlib is in the extra fastlstm[plot]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(BASELINE, color="grey", linestyle="--", label="always saying 1")
    colours = dict(zip(NETWORKS, ("tab:blue", "tab:orange"), strict=True))
    labelled = set()
    for result in results:
        label = None if result.network in labelled else result.network
        labelled.add(result.network)
        axes.semilogy(*zip(*result.curve, strict=True), color=colours[result.network], label=label)
    axes.set(
        xlabel="step",
        ylabel="mean squared error",
        title=f"The adding problem, T = {settings.length}",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--steps", type=int, default=Settings.steps, metavar="N")
    parser.add_argument("--length", type=int, default=Settings.length, metavar="T")
    parser.add_argument("--hidden-size", type=int, default=Settings.hidden_size, metavar="H")
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate, metavar="X")
    parser.add_argument(
        "--out", type=Path, default=Path("build/quality"), metavar="FOLDER",
        help="where adding.json and adding.png go (default: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if find_spec("matplotlib") is None:
        parser.error("the plot needs matplotlib: pip install 'fastlstm[plot]'")
    settings = Settings(
        steps=arguments.steps,
        length=arguments.length,
        hidden_size=arguments.hidden_size,
        learning_rate=arguments.learning_rate,
        validate_every=max(1, arguments.steps // 20),
    )
    results = []
    for seed in arguments.seeds:
        for network in NETWORKS:
            results.append(train(network, settings, seed))
            print(f"{network}, seed {seed}: {results[-1].error:.5f}", flush=True)
    print_table(settings, results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = {"settings": asdict(settings), "results": [asdict(result) for result in results]}
    (arguments.out / "adding.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(arguments.out / "adding.png", settings, results)
    print(f"\n{arguments.out / 'adding.json'}, {arguments.out / 'adding.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""One LSTM layer, float32: inference, backward, streaming, and the memory of a training step.

Only the public face is used, so that the suite runs on old commits and new ones alike. asv calls
`setup` anew before each sample; what is measured therefore lasts long enough for a sample of one
call.
"""
# ruff: noqa: ARG002  (asv hands the parameters to every method)

from __future__ import annotations

import numpy as np

import fastlstm

# steps T, batch B, input size I and hidden size H
SHAPES = {
    "T100 B1 H64": (100, 1, 64, 64),
    "T100 B1 H256": (100, 1, 256, 256),
    "T100 B16 H128": (100, 16, 128, 128),
    "T100 B64 H256": (100, 64, 256, 256),
}
THREADS = [1, 2]


class _OverShapes:
    """A random layer and a random batch for each shape, on each number of threads."""

    params = (list(SHAPES), THREADS)
    param_names = ("shape", "threads")
    number = 1
    repeat = (20, 200, 3.0)  # samples in a round: at least, at most, and for how many seconds

    def setup(self, shape: str, threads: int) -> None:
        fastlstm.set_num_threads(threads)
        steps, batch, input_size, hidden_size = SHAPES[shape]
        rng = np.random.default_rng(0)
        self.lstm = fastlstm.LSTM(input_size, hidden_size, rng=rng)
        self.x = rng.standard_normal((steps, batch, input_size), dtype=np.float32)
        self.d_output = rng.standard_normal((steps, batch, hidden_size), dtype=np.float32)
        self.lstm(self.x)  # threads awake and weights in cache


class Forward(_OverShapes):
    """Inference over whole sequences."""

    def time_forward(self, shape: str, threads: int) -> None:
        self.lstm(self.x)


class Backward(_OverShapes):
    """Gradients of x and of all weights."""

    def setup(self, shape: str, threads: int) -> None:
        super().setup(shape, threads)
        _, _, self.tape = self.lstm.forward(self.x)  # serves one backward

    def time_backward(self, shape: str, threads: int) -> None:
        self.lstm.backward(self.tape, self.d_output)


class Step(_OverShapes):
    """A stream: T calls of one step each, with the state carried on."""

    def time_step(self, shape: str, threads: int) -> None:
        state = None
        for t in range(len(self.x)):
            _, state = self.lstm(self.x[t : t + 1], state)


class Training(_OverShapes):
    """The process's largest size over forward and backward, Python and the batch included."""

    def peakmem_training(self, shape: str, threads: int) -> None:
        _, _, tape = self.lstm.forward(self.x)
        self.lstm.backward(tape, self.d_output)

"""The network that forecasts: a linear map of the lookback, and an LSTM for what that leaves.

Every variable is a sequence of its own that one network reads, as in PatchTST (Nie et al. 2023,
"A time series is worth 64 words"), relative to its last value, which is added to the forecast
again. Its steps are patches of successive values (SegRNN: Lin et al. 2023), so that an LSTM sees a
day of hours as one step. The last state gives all steps of the horizon at once. The linear map
(DLinear: Zeng et al. 2023, "Are transformers effective for time series forecasting?") begins at
zero, as the LSTM's part of the forecast does: an untrained network says that all stays as it is.

What is known of the future is read by a second LSTM that begins with the state of the first one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import init
from fastlstm._validate import Array, check_choice
from fastlstm.layers import Dropout, Linear
from fastlstm.losses import mean_squared_error, quantile_loss
from fastlstm.lstm import LSTM
from fastlstm.parameters import Layer
from fastlstm.rnn import RNN
from fastlstm.tasks._base.networks import CELLS, Grads, Network, Rng, Start, begin, joined


class ForecastNetwork(Network):
    """Windows of history and what is known -> forecasts (B, horizon, variables, outputs).

    Shapes: B windows of L = lookback steps, D variables, K known inputs, H = horizon, Q outputs;
    P = patch, S = L // P steps of the LSTM, the last of which ends with the window.

    Parameters
    ----------
    variables, known, lookback, horizon, patch : int
    quantiles : tuple of float, or None
        What the outputs are: these (Q), learnt by the pinball loss, or the mean (Q = 1), learnt by
        the squared error.
    mixing : bool
        The LSTM reads the patches of all variables beside a variable's own, and which one it is.
    hidden_size, num_layers, dropout, cell
        Of the LSTM; dropout between the layers and of what the outputs are made of.
    """

    def __init__(
        self,
        *,
        variables: int,
        known: int,
        lookback: int,
        horizon: int,
        quantiles: tuple[float, ...] | None,
        patch: int,
        mixing: bool,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        cell: str,
        start: Start,
        dtype: DTypeLike = np.float32,
    ) -> None:
        outputs = 1 if quantiles is None else len(quantiles)
        self.horizon, self.quantiles, self._outputs = horizon, quantiles, outputs
        self.lookback, self.known, self.patch, self.mixing = lookback, known, patch, mixing
        features = patch * (1 + known) + (variables * (patch + 1) if mixing else 0)
        check_choice("cell", cell, CELLS)
        recurrent: Any = LSTM if cell == "lstm" else RNN
        options = {"dropout": dropout if num_layers > 1 else 0.0, "dtype": dtype}
        rng = begin(start, "encoder")
        self.encoder = recurrent(features, hidden_size, num_layers, rng=rng, **options)
        sizes = {"head": hidden_size, "highway": lookback}
        self.head, self.highway = (
            Linear(size, horizon * outputs, dtype=dtype, rng=begin(start, name))
            for name, size in sizes.items()
        )
        parts: dict[str, Layer] = {
            "encoder": self.encoder, "head": self.head, "highway": self.highway,
        }  # fmt: skip
        if known:
            rng = begin(start, "decoder")
            self.decoder = recurrent(known, hidden_size, num_layers, rng=rng, **options)
            self.future = Linear(
                hidden_size + known, outputs, dtype=dtype, rng=begin(start, "future")
            )
            parts |= {"decoder": self.decoder, "future": self.future}
        self._dropout = Dropout(dropout)
        if isinstance(start, np.random.Generator):
            for part in parts.values():
                if isinstance(part, LSTM):
                    init.forget_bias(part, 1.0)
                elif isinstance(part, Linear):
                    _zero(part)
        self._join(**parts)

    def __call__(self, window: Array, known: Array | None) -> Array:
        """Windows (B, L, D) and known inputs (B, L + H, K) -> (B, H, D, Q)."""
        relative, last = _relative(window)
        output, state = self.encoder(self._steps(relative, known))
        forecast = self.head(np.ascontiguousarray(output[-1])) + self.highway(_rows(relative))
        forecast = self._by_step(forecast, window.shape)
        if known is not None:
            inputs = self._future_inputs(known, window.shape[2])
            output, _ = self.decoder(inputs, state)
            output = self.future(np.concatenate([output, inputs], axis=2))
            forecast += self._from_future(output, window.shape)
        return forecast + last

    def loss(self, prediction: Array, target: Array) -> tuple[float, Array]:
        """Of predictions (B, H, D, Q) beside what came (B, H, D), and its gradient."""
        if self.quantiles is None:
            return mean_squared_error(prediction, target[..., np.newaxis])
        return quantile_loss(prediction, target, self.quantiles)

    def loss_and_grads(
        self, batch: tuple[Array, Array | None, Array], _state: object, rng: Rng
    ) -> tuple[float, Grads, None]:
        """For the Trainer; a batch is (window, known, target (B, H, D))."""
        window, known, target = batch
        prediction, tapes = self.forward(window, known, rng)
        loss, d_prediction = self.loss(prediction, target)
        return loss, self.backward(tapes, d_prediction), None

    def forward(self, window: Array, known: Array | None, rng: Rng) -> tuple[Array, dict[str, Any]]:
        """A call with dropout, and the tapes for `backward`."""
        rng = rng if self._dropout.p else None
        relative, last = _relative(window)
        tapes: dict[str, Any] = {"shape": window.shape}
        output, state, tapes["encoder"] = self.encoder.forward(
            self._steps(relative, known), rng=rng
        )
        final, tapes["final"] = self._dropout.forward(output[-1], rng)
        forecast, tapes["head"] = self.head.forward(final)
        linear, tapes["highway"] = self.highway.forward(_rows(relative))
        forecast = self._by_step(forecast + linear, window.shape)
        if known is not None:
            inputs = self._future_inputs(known, window.shape[2])
            output, _, tapes["decoder"] = self.decoder.forward(inputs, state, rng=rng)
            output, tapes["outputs"] = self._dropout.forward(output, rng)
            joint = np.concatenate([output, inputs], axis=2)
            output, tapes["future"] = self.future.forward(joint)
            forecast += self._from_future(output, window.shape)
        return forecast + last, tapes

    def backward(self, tapes: dict[str, Any], d_prediction: Array) -> Grads:
        """Gradients of the parameters."""
        batch, _, variables = tapes["shape"]
        rows = batch * variables
        grads: dict[str, Grads] = {}
        d_state = None
        if "decoder" in tapes:
            d_output = d_prediction.transpose(1, 0, 2, 3).reshape(len(d_prediction[0]), rows, -1)
            d_joint, grads["future"] = self.future.backward(tapes["future"], d_output)
            d_output = d_joint[..., : self.decoder.hidden_size]
            d_output, _ = self._dropout.backward(tapes["outputs"], d_output)
            _, d_state, grads["decoder"] = self.decoder.backward(tapes["decoder"], d_output)
        d_rows = d_prediction.swapaxes(1, 2).reshape(rows, -1)
        _, grads["highway"] = self.highway.backward(tapes["highway"], d_rows)
        d_final, grads["head"] = self.head.backward(tapes["head"], d_rows)
        d_final, _ = self._dropout.backward(tapes["final"], d_final)
        d_output = np.zeros((self.lookback // self.patch, *d_final.shape), d_final.dtype)
        d_output[-1] = d_final
        _, _, grads["encoder"] = self.encoder.backward(tapes["encoder"], d_output, d_state)
        return joined(**grads)

    # --- shapes -----------------------------------------------------------------------------------

    def _steps(self, relative: Array, known: Array | None) -> Array:
        """What the LSTM reads, (S, B·D, F)."""
        batch, lookback, variables = relative.shape
        patch = self.patch
        steps = lookback // patch
        recent = relative[:, lookback - steps * patch :].reshape(batch, steps, patch, variables)
        features = [recent.transpose(1, 0, 3, 2)]
        shared = []
        if self.mixing:
            shared.append(recent.reshape(batch, steps, patch * variables))
        if known is not None:
            before = known[:, lookback - steps * patch : lookback]
            shared.append(before.reshape(batch, steps, patch * self.known))
        for one in shared:
            each = one.swapaxes(0, 1)[:, :, np.newaxis]
            features.append(np.broadcast_to(each, (steps, batch, variables, one.shape[2])))
        if self.mixing:
            which = np.eye(variables, dtype=relative.dtype)
            features.append(np.broadcast_to(which, (steps, batch, variables, variables)))
        return np.concatenate(features, axis=3).reshape(steps, batch * variables, -1)

    def _future_inputs(self, known: Array, variables: int) -> Array:
        """Known inputs of the horizon for each variable, (H, B·D, K)."""
        return np.repeat(known[:, self.lookback :].swapaxes(0, 1), variables, axis=1)

    def _by_step(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """(B·D, H·Q) -> (B, H, D, Q)."""
        return rows.reshape(shape[0], shape[2], self.horizon, self._outputs).swapaxes(1, 2)

    def _from_future(self, output: Array, shape: tuple[int, ...]) -> Array:
        """(H, B·D, Q) -> (B, H, D, Q)."""
        return output.reshape(self.horizon, shape[0], shape[2], -1).swapaxes(0, 1)


def _relative(window: Array) -> tuple[Array, Array]:
    """A window (B, L, D) less its last values, and these as (B, 1, D, 1)."""
    last = window[:, -1:]
    return window - last, last[..., np.newaxis]


def _rows(relative: Array) -> Array:
    """(B, L, D) -> (B·D, L)."""
    batch, lookback, variables = relative.shape
    return relative.swapaxes(1, 2).reshape(batch * variables, lookback)


def _zero(layer: Linear) -> None:
    with layer.editing() as parameters:
        for array in parameters.values():
            array[...] = 0

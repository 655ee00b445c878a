"""Writes keras_cases.npz: what keras.layers.LSTM computes for keras_cases.CASES.

    python -m tests.witnesses.make_keras_cases

In float32: on the torch backend of Keras 3.12 a layer of float64 rounds its products to float32,
too. Needs Keras and torch; reading the file does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.keras_peer import import_keras, to_numpy
from tests.witnesses.keras_cases import CASES, FILE, HIDDEN, STEPS, Array, KerasCase


def run_keras(case: KerasCase) -> dict[str, Array]:
    """The results of a case, forward and backward, under its names and in Keras' layout.

    output and states are of layers that return both; last is the output of the same stack without
    return_sequences; stateful is that of stateful layers which see the sequences in two halves.
    Gradients are of the sum of output · d_output and states · d_states.
    """
    import torch

    x, h_and_c = _leaf(case.arrays["x"]), _leaf(case.arrays["states"])
    layers = _layers(case)
    output, states = _run(case, layers, x, h_and_c)
    d_output, d_states = (_leaf(case.arrays[name]) for name in ("d_output", "d_states"))
    ((output * d_output).sum() + (states * d_states).sum()).backward()
    results = {"output": output, "states": states, "d_x": x.grad, "d_states": h_and_c.grad}
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    results |= {
        f"d_{name}": variable.value.grad
        for name, variable in zip(case.weights(), variables, strict=True)
    }
    with torch.no_grad():
        layers = _layers(case, return_sequences=False)
        results["last"], _ = _run(case, layers, x, h_and_c)
        # Keras 3.12 fails on a stateful Bidirectional that returns states and has a mask.
        layers = _layers(case, stateful=True, return_state=False)
        first, _ = _run(case, layers, x, h_and_c, slice(0, STEPS // 2))
        second, _ = _run(case, layers, x, None, slice(STEPS // 2, STEPS))
        results["stateful"] = torch.cat([first, second], dim=1)
    return {name: to_numpy(results[name]) for name in case.result_shapes()}


def _leaf(array: Array) -> Any:
    import torch

    return torch.tensor(array, requires_grad=True)


def _layers(
    case: KerasCase,
    *,
    return_sequences: bool = True,
    return_state: bool = True,
    stateful: bool = False,
) -> list[Any]:
    """The stack with its weights. `return_sequences` is of the last layer."""
    keras = import_keras()
    layers = []
    per_layer = len(case.weights()) // case.num_layers
    for k in range(case.num_layers):
        layer = keras.layers.LSTM(
            HIDDEN, use_bias=case.use_bias, return_state=return_state, stateful=stateful,
            return_sequences=return_sequences or k + 1 < case.num_layers,
            go_backwards=case.direction == "go_backwards",
        )  # fmt: skip
        if case.direction == "bidirectional":
            layer = keras.layers.Bidirectional(layer)
        layer.build((*case.arrays["x"].shape[:2], case.width if k else case.arrays["x"].shape[2]))
        names = case.weights()[k * per_layer : (k + 1) * per_layer]
        layer.set_weights([case.arrays[name] for name in names])
        layers.append(layer)
    return layers


def _run(
    case: KerasCase, layers: list[Any], x: Any, h_and_c: Any, steps: slice = slice(None)
) -> tuple[Any, Any]:
    """Output of the last layer, and, where they are returned, all states as (runs, 2, B, H)."""
    import torch

    output, states = x[:, steps], []
    valid = None if case.valid is None else torch.tensor(case.valid[:, steps].copy())
    per_layer = case.runs // case.num_layers
    for k, layer in enumerate(layers):
        initial = None
        if case.state and h_and_c is not None:
            own = h_and_c[k * per_layer : (k + 1) * per_layer]
            initial = [state for run in own for state in run]
        output = layer(output, initial_state=initial, mask=valid)
        if isinstance(output, tuple):
            output, *final = output
            states += final
    if not states:
        return output, None
    return output, torch.stack(states).reshape(case.runs, 2, *states[0].shape)


def main() -> None:
    results = [run_keras(case) for case in CASES]
    values = [array.ravel() for result in results for array in result.values()]
    np.savez_compressed(FILE, values=np.concatenate(values))
    print(f"{FILE.name}: {len(CASES)} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

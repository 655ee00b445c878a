"""Layer objects of Keras 3, in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, check_flag
from fastlstm.interop.keras._configs import LAYERS, Description, Weights, build, describe, merge
from fastlstm.interop.keras._exports import describe_layers, is_recurrent, weights_of
from fastlstm.lstm import LSTM

_DROPOUTS = ("Dropout", "SpatialDropout1D")


def from_keras(layer: Any) -> LSTM:
    """An LSTM with the weights and options of a Keras layer, or of a stack of them.

    Parameters
    ----------
    layer : keras.layers.LSTM, Bidirectional, RNN or LSTMCell, or a list of layers
        Built: it has its weights. An RNN has an LSTMCell, or a list of them, which become the
        layers of a stack. Bidirectional is over an LSTM, or over an RNN of one LSTMCell, with
        ``merge_mode="concat"``. A list is a stack, each layer of which takes the whole output of
        the one before; a Dropout or SpatialDropout1D layer may stand between each two.

    Returns
    -------
    lstm : LSTM
        With ``batch_first=True``, as Keras has it. All weights are equal to the bit (bias_hh is
        zero). `dropout` becomes ``input_dropout``, and in the upper layers of a stack ``dropout``
        with ``locked_dropout=True``.

    Raises
    ------
    TypeError
        If it is no such layer. A class of your own, also one derived from these, may compute
        something else.
    ValueError
        If the layer is not built, or if it has something that our LSTM lacks, which the message
        names: another merge mode, an activation other than Keras' linear, relu, leaky_relu, elu,
        sigmoid, hard_sigmoid, tanh, softsign and softplus, a dtype policy other than float32 and
        float64, directions or layers of a stack that differ.

    Notes
    -----
    What only says which part of the results to return, or what to do with the state, is no part
    of an LSTM of ours: it returns the whole sequence and the last state, and takes an initial one.

    - ``return_sequences=False`` is ``output[:, -1]``, or ``h_n[-1]``.
    - ``go_backwards=True`` becomes ``reverse=True``. Keras then returns the sequence in the order
      in which it was computed, last step first: ``output[:, ::-1]`` gives that order. Under
      Bidirectional, Keras turns it round itself, and both agree as they are.
    - ``stateful=True``: hand in the state that the call before returned.
    - A mask holds state and output, as ours does. Under Bidirectional (or with
      ``zero_output_for_mask``) Keras returns zeros there: ``output * mask[..., None]``.
    - Dropout has the same rates and draws fewer masks. Keras draws one on the inputs for each
      direction, and as soon as there is recurrent_dropout, one on the inputs and one on h for each
      of the four gates; ours draws one on the inputs, and one on h for each direction.
    - Regularisers, constraints and initialisers are of no matter to a layer that has its weights.
    """
    if isinstance(layer, (list, tuple)):
        return _from_stack(layer)
    description = _describe(layer)
    return build(description, _weights(layer))


def to_keras(lstm: LSTM, *, return_sequences: bool = True, return_state: bool = False) -> Any:
    """A built Keras layer with the weights and options of an LSTM, on Keras' active backend.

    Parameters
    ----------
    lstm : LSTM
        Its `batch_first` is of no matter: Keras' layers take (B, T, features).
    return_sequences, return_state : bool
        Of the last layer. Those below it hand on the whole sequence and nothing else.

    Returns
    -------
    layer : keras.layers.LSTM or keras.layers.Bidirectional, or a list of layers
        A list, from the bottom up, if the LSTM has several layers; where it has `dropout` without
        `locked_dropout`, keras.layers.Dropout stands between each two. ``from_keras`` takes it
        back.

    Raises
    ------
    TypeError
        If `lstm` is no LSTM.
    ValueError
        If it has an option that Keras lacks, which the message names.
    ImportError
        If Keras is not installed.

    Notes
    -----
    Keras has one bias, which becomes ``bias_ih + bias_hh``. So weights that came from Keras
    (bias_hh is zero) go back to the bit, and others give the same outputs within rounding, but
    the two biases are not to be had back.

    With ``reverse=True`` the Keras layer returns its sequence last step first; see `from_keras`.
    """
    return_sequences = check_flag("return_sequences", return_sequences)
    return_state = check_flag("return_state", return_state)
    items = describe_layers(lstm, return_sequences=return_sequences, return_state=return_state)
    keras = import_extra("keras", extra="keras", purpose="Keras' layers")
    layers, weights = [], iter(weights_of(lstm))
    width = lstm.input_size
    for item in items:
        layer = keras.saving.deserialize_keras_object(item)
        layer.build((None, None, width))
        if is_recurrent(item):
            for cell, own in zip(_cells(layer), next(weights), strict=True):
                for variable, array in zip(_variables(cell), own, strict=True):
                    variable.assign(array)
            width = lstm.hidden_size * (2 if lstm.bidirectional else 1)
        layers.append(layer)
    return layers[0] if lstm.num_layers == 1 else layers


# --- a layer, or a stack --------------------------------------------------------------------------


def _from_stack(layers: Sequence[Any]) -> LSTM:
    with_dropout = any(_class_of(layer) in _DROPOUTS for layer in layers)
    recurrent = layers[::2] if with_dropout else layers
    dropouts = layers[1::2] if with_dropout else []
    if not layers or len(recurrent) == len(dropouts):
        raise ValueError(f"layer: expected a list that ends with an LSTM, got {len(layers)} layers")
    description = merge([_describe(layer) for layer in recurrent])
    if dropouts:
        description = _with_dropout(description, dropouts)
    return build(description, [own for layer in recurrent for own in _weights(layer)])


def _with_dropout(description: Description, dropouts: Sequence[Any]) -> Description:
    """What Dropout layers between the layers of a stack say: all the same."""
    kinds = set()
    for layer in dropouts:
        if _class_of(layer) not in _DROPOUTS:
            raise TypeError(f"layer: expected Dropout between each two, got {_name(layer)}")
        shape = getattr(layer, "noise_shape", None)
        locked = _class_of(layer) == "SpatialDropout1D" or (
            shape is not None and tuple(shape) == (None, 1, None)
        )
        if shape is not None and not locked:
            raise ValueError(f"noise_shape={shape}: expected None or (None, 1, None)")
        kinds.add((float(layer.rate), locked))
    if len(kinds) > 1:
        raise ValueError(f"Dropout layers of one stack differ: {sorted(kinds)}")
    rate, locked = kinds.pop()
    return replace(description, between=rate, locked=locked and rate > 0)


def _describe(layer: Any) -> Description:
    kind = _class_of(layer)
    if kind not in LAYERS:
        raise TypeError(
            f"layer: expected keras.layers.{', '.join(LAYERS[:-1])} or {LAYERS[-1]}, "
            f"got {_name(layer)}"
        )
    if not all(cell.built for cell in _cells(layer)):
        raise ValueError(f"layer: {layer.name!r} has no weights yet: build it, or call it once")
    version = str(sys.modules["keras"].__version__)
    if int(version.partition(".")[0]) < 3:
        raise ValueError(f"layer: expected a layer of Keras 3, got one of Keras {version}")
    return describe({"class_name": kind, "config": layer.get_config()}, version)


def _class_of(layer: Any) -> str | None:
    """The name of a class of Keras, and None for any other, also for one derived from Keras'."""
    module = type(layer).__module__.split(".")
    return type(layer).__name__ if module[:3] == ["keras", "src", "layers"] else None


def _name(layer: Any) -> str:
    return f"a {type(layer).__module__}.{type(layer).__qualname__}"


# --- weights --------------------------------------------------------------------------------------


def _weights(layer: Any) -> list[Weights]:
    return [tuple(_to_numpy(variable) for variable in _variables(cell)) for cell in _cells(layer)]


def _cells(layer: Any) -> list[Any]:
    """The LSTMCells of a layer: one, or one for each direction, or for each of stacked cells."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        return [*_cells(layer.forward_layer), *_cells(layer.backward_layer)]
    if kind == "StackedRNNCells":
        return list(layer.cells)
    return _cells(layer.cell) if hasattr(layer, "cell") else [layer]


def _variables(cell: Any) -> list[Any]:
    bias = [cell.bias] if cell.use_bias else []
    return [cell.kernel, cell.recurrent_kernel, *bias]


def _to_numpy(variable: Any) -> Array:
    value = variable.value
    # Keras' own conversion takes a path through torch of which NumPy 2 warns.
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)

"""Whole models: LSTM nodes on our kernels, what stands around them by onnx's reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array, check_array, check_names, check_size
from fastlstm.interop.onnx._graph import Graph, Input, Proto, describe, label, read_graph
from fastlstm.interop.onnx._lstm_node import LSTMNode, run_layers
from fastlstm.interop.onnx._operators import OPERATORS, Arrays, Operator
from fastlstm.lstm import LSTM
from fastlstm.storage import FormatError

_WEIGHTS = (1, 2, 3, 7)  # W, R, B and P among a node's inputs


def load(path: str | os.PathLike[str] | Proto, *, memory_limit: int = 2**32) -> Model:
    """Load a model that torch.onnx.export, tf2onnx, Keras or `save` wrote, to run it.

    Nodes of the operator LSTM run on fastlstm's kernels; the others are computed by
    ``onnx.reference``, and only those of a fixed list are taken (no loops and branches, no
    functions, no convolutions). Nothing of the file is executed. Weights that are constants, or are
    computed from constants alone, become layers once, here.

    Parameters
    ----------
    path : str, path or onnx.ModelProto
        Tensors that the file keeps in other files ("external data") are read only from its own
        folder.
    memory_limit : int
        Bytes that the results of nodes may take at any one time of a run (4 GiB).

    Raises
    ------
    TypeError
        If `path` is none of these.
    OSError
        If the file cannot be read.
    FormatError
        If it is no valid model, or has what cannot be run: the message names the node.
    ImportError
        If onnx is not installed.

    Notes
    -----
    A file may be anybody's: no code is run from it, no file outside of its folder is opened, and
    loading takes less than 64 times the size of the file (and of those that it names).
    """
    memory_limit = check_size("memory_limit", memory_limit, most=2**62)
    return Model(read_graph(path), memory_limit)


def read_lstms(path: str | os.PathLike[str] | Proto) -> dict[str, LSTM]:
    """The LSTM nodes of a model as layers, whatever else the model consists of.

    Parameters
    ----------
    path : str, path or onnx.ModelProto

    Returns
    -------
    layers : dict of str to LSTM
        Under the names of the nodes (of their first outputs, where nodes have no name), in the
        order in which they run. A node has one layer, bidirectional or not, and batch_first where
        its `layout` is 1; one with different activations for its two directions gives two layers,
        "NAME.forward" and "NAME.reverse".

    Raises
    ------
    TypeError, OSError, ImportError
        As for `load`.
    FormatError
        If the file is no valid model, a node's weights are known only when the model runs, or
        there is no such node (those within loops and branches are not looked for).
    """
    graph = read_graph(path)
    found: dict[str, LSTM] = {}
    for node in graph.nodes:
        if _is_lstm(node):
            layers = _constant_layers(graph, node)
            if layers is None:
                raise graph.error(node, "its weights are computed while the model runs")
            _add_layers(found, node, layers)
    if not found:
        raise FormatError(f"{graph.where}: a model without a node LSTM")
    return found


class Model:
    """A model from a file; `load` makes it. Many threads may run it at once.

    Attributes
    ----------
    inputs : tuple of Input
        What `run` wants, in order: each with a `name`, a `dtype` and a `shape`, whose entries are
        sizes, or names where any size will do ("..." for any axes).
    outputs : tuple of str
        The names of what `run` returns, in order.
    lstms : dict of str to LSTM
        The layers that its LSTM nodes run on, under the names that `read_lstms` gives them.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    lstms: dict[str, LSTM]

    def __init__(self, graph: Graph, memory_limit: int) -> None:
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self.lstms = {}
        self._memory_limit = memory_limit
        self._steps = [self._step(graph, node) for node in graph.nodes]
        self._constants = _free_after_use(graph, self._steps)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{i.name} {i.shape}" for i in self.inputs)
        return f"Model({inputs} -> {', '.join(self.outputs)})"

    def run(self, inputs: Mapping[str, Array] | Sequence[Array]) -> dict[str, Array]:
        """Run the model.

        Parameters
        ----------
        inputs : mapping of str to ndarray, or sequence of ndarray
            All inputs, under their names or in their order, of exactly their dtypes.

        Returns
        -------
        outputs : dict of str to ndarray
            All outputs under their names, in the model's order; arrays of their own.

        Raises
        ------
        TypeError
            If an input is no array, or has another dtype.
        ValueError
            If inputs are missing or unknown, or a shape is not the one that the model declares.
        FormatError
            If a node fails on these inputs, or the results would take more than `memory_limit`.
        """
        given = self._check_inputs(inputs)
        results = {**self._constants, **given}
        spare = self._memory_limit
        with np.errstate(all="ignore"):  # infinities and NaNs are what the operators say they are
            for step in self._steps:
                for name, array in step(results, spare):
                    results[name] = array
                    spare -= array.nbytes
                for name in step.unused:
                    spare += results.pop(name).nbytes
        outputs: dict[str, Array] = {}
        for name in self.outputs:
            array = results[name]
            taken = [*given.values(), *outputs.values()]
            own = array.flags.writeable and not any(np.may_share_memory(array, a) for a in taken)
            outputs[name] = array if own else array.copy()
        return outputs

    def _check_inputs(self, inputs: object) -> dict[str, Array]:
        names = [i.name for i in self.inputs]
        if isinstance(inputs, Mapping):
            given = dict(check_names("inputs", inputs, names))
        elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
            if len(inputs) != len(names):
                raise ValueError(f"inputs: expected {len(names)} ({names}), got {len(inputs)}")
            given = dict(zip(names, inputs, strict=True))
        else:
            raise TypeError(f"inputs: expected a dict or a list of arrays, got {type(inputs)}")
        return {
            i.name: check_array(f"inputs[{i.name!r}]", given[i.name], i.dtype, i.shape)
            for i in self.inputs
        }

    def _step(self, graph: Graph, node: Proto) -> _Step:
        if _is_lstm(node):
            layers = _constant_layers(graph, node)
            if layers is not None:
                _add_layers(self.lstms, node, layers)
            step = _Step(graph, node, _LSTMOperator(LSTMNode(node), layers))
            if layers is not None:  # its weights have done their part
                step.inputs = [n * (k not in _WEIGHTS) for k, n in enumerate(step.inputs)]
            return step
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise graph.error(node, f"the operator {node.op_type} is not one that can be run")
        try:
            return _Step(graph, node, Operator(node, graph.opset))
        except Exception as error:
            raise graph.error(node, error) from error


class _Step:
    """A node of a run."""

    unused: Sequence[str] = ()  # results that no later step reads

    def __init__(self, graph: Graph, node: Proto, operator: Operator | _LSTMOperator) -> None:
        self._where = f"{graph.where}: {describe(node)}"
        self._operator = operator
        self.inputs = list(node.input)
        self.outputs = list(node.output)

    def __call__(self, results: Mapping[str, Array], spare: int) -> list[tuple[str, Array]]:
        """The node's results under their names, once they fit into the spare bytes."""
        arguments = [results[name] if name else None for name in self.inputs]
        try:
            bound = self._operator.bound(arguments)
            if bound > spare:
                raise ValueError(f"its results need {bound} bytes, the limit leaves {spare}")
            outputs = self._operator(arguments)
            return [
                (name, _compact(array))
                for name, array in zip(self.outputs, outputs, strict=False)
                if name
            ]
        except Exception as error:
            raise FormatError(f"{self._where}: {error}") from error


@dataclass(frozen=True)
class _LSTMOperator:
    """A node LSTM on layers made from its constants; without those, on new ones in every run."""

    node: LSTMNode
    layers: tuple[LSTM, ...] | None

    def bound(self, inputs: Arrays) -> int:
        x, _, r = inputs[:3]
        hidden = self.layers[0].hidden_size if self.layers else r.shape[-1]
        rows = x.size // max(x.shape[-1], 1) + 2 * max(x.shape[:-1], default=0)
        return int(rows * self.node.directions * hidden * x.itemsize)

    def __call__(self, inputs: Arrays) -> tuple[Array, Array, Array]:
        x, w, r, b, lengths, h_0, c_0, p = (*inputs, *[None] * 8)[:8]
        layers = self.node.layers(w, r, b, p) if self.layers is None else self.layers
        return run_layers(layers, x, lengths, h_0, c_0)


def _is_lstm(node: Proto) -> bool:
    return node.op_type == "LSTM" and node.domain in ("", "ai.onnx")


def _constant_layers(graph: Graph, node: Proto) -> tuple[LSTM, ...] | None:
    """The layers of a node; None where a weight is computed while the model runs."""
    names = (*node.input, *[""] * 8)[:8]
    weights = [graph.constants.get(names[k]) if names[k] else None for k in _WEIGHTS]
    if any(names[k] and a is None for k, a in zip(_WEIGHTS, weights, strict=True)):
        return None
    w, r, b, p = weights
    try:
        if w is None or r is None:
            raise ValueError("expected the weights W and R")
        return LSTMNode(node).layers(w, r, b, p)
    except Exception as error:
        raise graph.error(node, error) from error


def _add_layers(found: dict[str, LSTM], node: Proto, layers: tuple[LSTM, ...]) -> None:
    # Names of nodes need not differ, those of results must.
    name = label(node)
    if any(taken in found for taken in (name, f"{name}.forward")):
        name = next(filter(None, node.output), name)
    if len(layers) == 1:
        found[name] = layers[0]
    else:
        found[f"{name}.forward"], found[f"{name}.reverse"] = layers


def _free_after_use(graph: Graph, steps: list[_Step]) -> dict[str, Array]:
    """Tell each step what is not needed after it; returns the constants that a run needs."""
    known = {*graph.constants, *(i.name for i in graph.inputs)}
    for step in steps:
        known.update(filter(None, step.outputs))
    missing = [name for name in graph.outputs if name not in known]
    if missing:
        raise FormatError(f"{graph.where}: no node computes the outputs {missing}")
    kept = {*graph.constants, *(i.name for i in graph.inputs), *graph.outputs}
    needed = set(graph.outputs)
    for step in reversed(steps):
        mentioned = set(filter(None, (*step.inputs, *step.outputs)))
        step.unused = sorted(mentioned - needed - kept)
        needed |= mentioned
    return {name: array for name, array in graph.constants.items() if name in needed}


def _compact(array: Array) -> Array:
    """The array; a copy where it is a small view that would keep a much larger one alive."""
    base = array.base
    held = base.nbytes if isinstance(base, np.ndarray) else array.nbytes
    return array.copy() if held > 2 * array.nbytes else array

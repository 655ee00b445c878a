"""Each library's LSTM, set up for one task.

An engine is a function from a task to a job; a peer of ours is one more of them. Each runs in a
process of its own and imports its library only there. It does what a careful user of that library
would do: buffers are allocated and weights are laid out before the call that is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.tasks import INFER, MODES, STEP, TRAIN, Array, Job, Shape, Task, stream_job
from benchmarks.timing import faster


@dataclass(frozen=True)
class Engine:
    """How a library does a task, which modes it can do, and which packages that needs."""

    job: Callable[[Task], Job]
    modes: tuple[str, ...]
    packages: tuple[str, ...]
    rival: bool = True  # False: ours by another door, measured beside and never the best of peers

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


# --- ours -----------------------------------------------------------------------------------------


def fastlstm_engine(task: Task) -> Job:
    import fastlstm

    fastlstm.set_num_threads(task.threads)
    weights, x, d_output = task.arrays()
    shape = task.shape
    lstm = fastlstm.LSTM(shape.input_size, shape.hidden_size, shape.num_layers, rng=0)
    lstm.load_state_dict(weights)
    if task.mode == STEP:
        stream, x_t = lstm.stream(shape.batch), x[0]
        h = np.empty((shape.batch, shape.hidden_size), np.float32)
        return stream_job(lambda: stream.step(x_t, out=h), lambda: (h, stream.state[1][0]))

    def train() -> tuple[Any, ...]:
        output, state, tape = lstm.forward(x)
        return output, state, lstm.backward(tape, d_output)

    def results() -> dict[str, Array]:
        if task.mode == INFER:
            output, (h_n, c_n) = lstm(x)
            return {"output": output, "h_n": h_n, "c_n": c_n}
        output, (h_n, c_n), (d_x, _, grads) = train()
        return {"output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x, **grads}

    return Job((lambda: lstm(x)) if task.mode == INFER else train, results)


# --- torch ----------------------------------------------------------------------------------------


def torch_engine(task: Task) -> Job:
    import torch

    torch.set_num_threads(task.threads)
    return _torch_cell(task) if task.mode == STEP else _torch_job(task, torch.nn.LSTM)


def in_torch_engine(task: Task) -> Job:
    """Our module in torch's place, autograd and all."""
    import torch

    import fastlstm
    from fastlstm.interop.torch import LSTM

    torch.set_num_threads(task.threads)
    fastlstm.set_num_threads(task.threads)
    return _torch_job(task, LSTM)


def _torch_job(task: Task, layer: Callable[..., Any]) -> Job:
    import torch

    weights, x_array, d_array = task.arrays()
    x, d_output = torch.from_numpy(x_array), torch.from_numpy(d_array)
    x.requires_grad_(task.mode == TRAIN)
    shape = task.shape
    lstm = layer(shape.input_size, shape.hidden_size, shape.num_layers)
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    inputs = {"d_x": x, **dict(lstm.named_parameters())}

    def train() -> tuple[Any, ...]:
        output, state = lstm(x)
        return output, state, torch.autograd.grad(output, list(inputs.values()), d_output)

    def results() -> dict[str, Array]:
        output, (h_n, c_n), *rest = lstm(x) if task.mode == INFER else train()
        found = {"output": output, "h_n": h_n, "c_n": c_n}
        for grads in rest:
            found |= dict(zip(inputs, grads, strict=True))
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    if task.mode == INFER:
        return Job(lambda: lstm(x), results, torch.inference_mode)
    return Job(train, results)


def _torch_cell(task: Task) -> Job:
    """A stream of LSTMCell, which spends much less around the products than nn.LSTM at T = 1."""
    import torch

    weights, (x_array,), _ = task.arrays()
    shape = task.shape
    cell = torch.nn.LSTMCell(shape.input_size, shape.hidden_size)
    cell.load_state_dict(
        {name.removesuffix("_l0"): torch.from_numpy(array) for name, array in weights.items()}
    )
    x = torch.from_numpy(x_array)
    state = (torch.zeros(shape.batch, shape.hidden_size),) * 2

    def step() -> None:
        nonlocal state
        state = cell(x, state)

    return stream_job(step, lambda: (state[0].numpy(), state[1].numpy()), torch.inference_mode)


# --- ONNX, and who runs it ------------------------------------------------------------------------


def onnx_model(task: Task) -> bytes:
    """An LSTM node a layer; input x, outputs `output` and each layer's h and c.

    In STEP, the first layer takes its state from the inputs h and c.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights, _, _ = task.arrays()
    shape = task.shape
    state_sizes = (1, shape.batch, shape.hidden_size)
    nodes, constants = [], []
    for layer in range(shape.num_layers):
        source, name = (f"below{layer}", f"_l{layer}") if layer else ("x", "_l0")
        operands = {
            f"W{layer}": _iofc(weights["weight_ih" + name])[np.newaxis],
            f"R{layer}": _iofc(weights["weight_hh" + name])[np.newaxis],
            f"B{layer}": np.hstack(
                [_iofc(weights["bias_ih" + name]), _iofc(weights["bias_hh" + name])]
            )[np.newaxis],
        }
        constants += [numpy_helper.from_array(array, name) for name, array in operands.items()]
        above = "output" if layer == shape.num_layers - 1 else f"below{layer + 1}"
        state = ["h", "c"] if task.mode == STEP else []
        nodes += [
            helper.make_node(
                "LSTM",
                [source, *operands, "", *state],
                [f"y{layer}", f"h{layer}", f"c{layer}"],
                hidden_size=shape.hidden_size,
            ),
            helper.make_node("Squeeze", [f"y{layer}", "directions"], [above]),
        ]

    def value(name: str, *sizes: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    inputs = [value("x", shape.steps, shape.batch, shape.input_size)]
    outputs = [
        value(f"{kind}{layer}", *state_sizes) for kind in "hc" for layer in range(shape.num_layers)
    ]
    if task.mode == STEP:
        inputs += [value("h", *state_sizes), value("c", *state_sizes)]
        nodes.pop()  # h0 says it all
    else:
        constants.append(numpy_helper.from_array(np.array([1]), "directions"))
        outputs.insert(0, value("output", shape.steps, shape.batch, shape.hidden_size))
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def _iofc(array: Array) -> Array:
    """ONNX's order of the gates, from torch's i, f, g, o."""
    return np.concatenate([np.split(array, 4)[gate] for gate in (0, 3, 1, 2)])


def _named(arrays: list[Array], shape: Shape) -> dict[str, Array]:
    """Results under their names, from the outputs of `onnx_model`."""
    output, *states = (np.array(array) for array in arrays)
    h_n, c_n = states[: shape.num_layers], states[shape.num_layers :]
    return {"output": output, "h_n": np.concatenate(h_n), "c_n": np.concatenate(c_n)}


def onnxruntime_engine(task: Task) -> Job:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(task), options, providers=["CPUExecutionProvider"]
    )
    if task.mode == STEP:
        return _onnxruntime_stream(task, session)
    _, x, _ = task.arrays()
    names = [output.name for output in session.get_outputs()]
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    outputs = [np.empty(output.shape, np.float32) for output in session.get_outputs()]
    for name, array in zip(names, outputs, strict=True):
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run() -> Any:
        return session.run(names, {"x": x})

    def run_bound() -> None:
        session.run_with_iobinding(binding)

    return Job(faster(run, run_bound), lambda: _named(run(), task.shape))


def _onnxruntime_stream(task: Task, session: Any) -> Job:
    """Two bindings that take turns: what one writes, the other reads; x is bound in place."""
    from onnxruntime import OrtValue

    _, x, _ = task.arrays()
    sizes = (1, task.shape.batch, task.shape.hidden_size)
    states = [(np.zeros(sizes, np.float32), np.zeros(sizes, np.float32)) for _ in range(2)]
    here, there = ([OrtValue.ortvalue_from_numpy(array) for array in pair] for pair in states)
    bindings = []
    for source, target in ((here, there), (there, here)):
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        for index, name in enumerate("hc"):
            binding.bind_ortvalue_input(name, source[index])
            binding.bind_ortvalue_output(f"{name}0", target[index])
        bindings.append(binding)
    turn = 0

    def run_bound() -> None:
        nonlocal turn
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn

    h, c = (np.zeros(sizes, np.float32) for _ in "hc")

    def run() -> None:
        nonlocal h, c
        h, c = session.run(["h0", "c0"], {"x": x, "h": h, "c": c})

    step = faster(run, run_bound)
    turn = 0
    for array in (h, c, *states[0]):
        array[...] = 0

    def state() -> tuple[Array, Array]:
        found = states[turn] if step is run_bound else (h, c)
        return found[0][0], found[1][0]

    return stream_job(step, state)


def openvino_engine(task: Task) -> Job:
    import openvino

    core = openvino.Core()
    properties = {
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # A pinned thread cannot get out of a neighbour's way, and gains nothing here.
        "ENABLE_CPU_PINNING": False,
    }
    model = core.compile_model(core.read_model(onnx_model(task)), "CPU", properties)
    request = model.create_infer_request()
    _, x, _ = task.arrays()
    request.get_input_tensor().data[...] = x

    def results() -> dict[str, Array]:
        request.infer()
        return _named([request.get_tensor(output).data for output in model.outputs], task.shape)

    return Job(request.infer, results)


# --- JAX ------------------------------------------------------------------------------------------


def jax_engine(task: Task) -> Job:
    import jax
    from jax import lax
    from jax import numpy as jnp

    shape = task.shape
    weights, x, d_output = (jax.device_put(arrays) for arrays in task.arrays())

    def cell(recurrent: Any, state: Any, projected: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(projected + h @ recurrent.T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def project(weights: Any, x: Any, layer: int = 0) -> Any:
        bias = weights[f"bias_ih_l{layer}"] + weights[f"bias_hh_l{layer}"]
        return x @ weights[f"weight_ih_l{layer}"].T + bias

    def forward(weights: Any, x: Any) -> Any:
        zeros = jnp.zeros((shape.batch, shape.hidden_size))
        states = []
        for layer in range(shape.num_layers):
            recurrent = weights[f"weight_hh_l{layer}"]
            step = lambda state, row, recurrent=recurrent: cell(recurrent, state, row)  # noqa: E731
            state, x = lax.scan(step, (zeros, zeros), project(weights, x, layer))
            states.append(state)
        h_n, c_n = (jnp.stack(parts) for parts in zip(*states, strict=True))
        return {"output": x, "h_n": h_n, "c_n": c_n}

    def forward_and_backward(weights: Any, x: Any, d_output: Any) -> Any:
        def function(weights: Any, x: Any) -> Any:
            found = forward(weights, x)
            return found["output"], found

        _, backward, found = jax.vjp(function, weights, x, has_aux=True)
        grads, d_x = backward(d_output)
        return {**found, "d_x": d_x, **grads}

    infer, train = jax.jit(forward), jax.jit(forward_and_backward)

    def call() -> Any:
        found = infer(weights, x) if task.mode == INFER else train(weights, x, d_output)
        return jax.block_until_ready(found)

    return Job(call, lambda: {name: np.asarray(array) for name, array in call().items()})


# --- NumPy ----------------------------------------------------------------------------------------


def numpy_engine(task: Task) -> Job:
    """The loop that a careful person writes: no allocation in it, one tanh for all four gates.

    σ(a) = (tanh(a / 2) + 1) / 2, and the halves are in the weights.
    """
    weights, x, _ = task.arrays()
    T, B, H = task.shape.steps, task.shape.batch, task.shape.hidden_size
    layers = range(task.shape.num_layers)
    halves = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), H)
    W, U, bias = [], [], []
    for name in (f"_l{layer}" for layer in layers):
        W.append(np.ascontiguousarray((weights["weight_ih" + name] * halves[:, np.newaxis]).T))
        U.append(np.ascontiguousarray((weights["weight_hh" + name] * halves[:, np.newaxis]).T))
        bias.append((weights["bias_ih" + name] + weights["bias_hh" + name]) * halves)
    projected = np.empty((T, B, 4 * H), np.float32)
    outputs = [np.empty((T, B, H), np.float32) for _ in layers]
    h_n, c_n = (np.zeros((len(layers), B, H), np.float32) for _ in range(2))
    gates, product = (np.empty((B, 4 * H), np.float32) for _ in range(2))
    i, f, g, o = np.split(gates, 4, axis=1)
    sigmoids = [gates[:, : 2 * H], gates[:, 3 * H :]]

    def step(layer: int, row: Array, h: Array, c: Array, h_next: Array) -> None:
        np.matmul(h, U[layer], out=product)
        np.add(row, product, out=gates)
        np.tanh(gates, out=gates)
        for part in sigmoids:
            np.add(part, 1, out=part)
            np.multiply(part, 0.5, out=part)
        np.multiply(c, f, out=c)
        np.multiply(i, g, out=i)
        np.add(c, i, out=c)
        np.tanh(c, out=g)
        np.multiply(o, g, out=h_next)

    def project(layer: int, below: Array) -> None:
        np.matmul(below.reshape(T * B, -1), W[layer], out=projected.reshape(T * B, -1))
        np.add(projected, bias[layer], out=projected)

    def infer() -> None:
        below = x
        for layer in layers:
            project(layer, below)
            h, c = h_n[layer], c_n[layer]
            h[...] = c[...] = 0
            below = outputs[layer]
            for t in range(T):
                step(layer, projected[t], h, c, below[t])
                h = below[t]
            h_n[layer] = h

    def one_step() -> None:
        project(0, x)
        step(0, projected[0], h_n[0], c_n[0], h_n[0])

    def results() -> dict[str, Array]:
        infer()
        return {"output": outputs[-1], "h_n": h_n, "c_n": c_n}

    if task.mode == STEP:
        return stream_job(one_step, lambda: (h_n[0], c_n[0]))
    return Job(infer, results)


OURS = "fastlstm"
ENGINES = {
    OURS: Engine(fastlstm_engine, MODES, ("fastlstm",)),
    "torch": Engine(torch_engine, MODES, ("torch",)),
    "onnxruntime": Engine(onnxruntime_engine, (INFER, STEP), ("onnxruntime", "onnx")),
    "openvino": Engine(openvino_engine, (INFER,), ("openvino", "onnx")),
    "jax": Engine(jax_engine, (INFER, TRAIN), ("jax",)),
    "numpy": Engine(numpy_engine, (INFER, STEP), ("numpy",)),
    "in-torch": Engine(in_torch_engine, (INFER, TRAIN), ("fastlstm", "torch"), rival=False),
}

"""torch.nn.LSTM on our kernels: a module to swap in, with autograd, on the memory of its tensors.

How the pieces fit: `LSTM.forward` checks what it was given as torch.nn.LSTM does, brings it into
the one layout of the time loop (rows without gaps, step by step: a PackedSequence has it already),
and calls `_Run`, an autograd Function of rows, states and weights. What a call needs beside
tensors is a `_Call`.

- Weights. `_Weights` are NumPy arrays over the memory of the weights' tensors, and the panels that
  are made of them. They serve as long as no tensor has changed: by its memory, its shape and its
  version counter, which every operation of torch moves that writes to it. Writes through
  ``weight.data`` move no counter, so where they are likely the values are looked at, too: before
  each call that records a tape, and before the first one without a tape that follows such a call,
  `train()`, `eval()` or `flatten_parameters()`. That is a sum over the weights, some hundredths of
  the time that it takes to make panels of them.
- Backward uses the tape up. x, states and weights are saved as tensors, so that torch itself
  raises if one of them was changed in place, and a graph that was retained and is walked once more
  runs forward again, to the same bits: the seed of the dropout masks is kept.
- Threads. At most as many as torch.set_num_threads allows. On Linux torch and our core ask for one
  and the same libgomp.so.1, so there is one pool of threads, and not two that spin against each
  other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastlstm import _scratch
from fastlstm._dropout import NO_MASKS, Dropouts, Masks
from fastlstm._sequences import check_sequences
from fastlstm._stack import LayerRun, Stack
from fastlstm._validate import Array, check_extent, check_pair, compact
from fastlstm._variants import Variant
from fastlstm._weights import WeightCache
from fastlstm.packing import Packing
from fastlstm.parameters import Parameters
from fastlstm.threads import at_most

State = tuple[Tensor, Tensor]

_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
# Sums of weights are taken in so many columns: a prime, so that rows which change places, as gates
# do in another order, do not meet in the same columns.
_COLUMNS = 509


class LSTM(torch.nn.LSTM):
    """`torch.nn.LSTM` that trains and infers on fastlstm's kernels, on the CPU.

    Signature, attributes, names of parameters, state dicts and results are those of
    `torch.nn.LSTM`, of which this is a subclass: change the one line that makes the layer. Takes
    float32 and float64, padded, packed and unbatched sequences. In a model that torch traces or
    exports, this is torch's own LSTM; torch.compile leaves it out of its graphs. The transforms of
    torch.func, other than functional_call, raise.

    Dropout draws a seed for its masks from torch's default generator in each call, so
    ``torch.manual_seed`` makes a run repeatable; the masks are not those of `torch.nn.LSTM`.

    Weights may be changed by whatever torch has for it. Between two calls under ``torch.no_grad()``
    a change through ``weight.data`` or a NumPy array, which torch itself does not notice, is seen
    only after `train`, `eval` or `flatten_parameters`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        As in `torch.nn.LSTM`.
    device, dtype
        Of the parameters. A call needs all tensors on the CPU, of torch.float32 or torch.float64.

    Examples
    --------
    >>> import torch
    >>> lstm = LSTM(3, 4)
    >>> output, (h_n, c_n) = lstm(torch.ones(5, 2, 3))
    >>> output.shape, output.requires_grad
    (torch.Size([5, 2, 4]), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip
        self._kept = _Kept()

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002, torch's name
        hx: State | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run the sequences; see `torch.nn.LSTM`, whose arguments and results these are.

        Raises
        ------
        TypeError
            If something is no tensor, or not of torch.float32 or torch.float64.
        ValueError
            If a tensor is not on the CPU, not of the weights' dtype, or has a wrong number of axes.
        RuntimeError
            If a size does not fit. In backward: if the input, a state or a weight was changed in
            place since.
        """
        dynamo = torch.compiler.is_dynamo_compiling()
        if torch.jit.is_tracing() or (torch.compiler.is_compiling() and not dynamo):
            return super().forward(input, hx)  # type: ignore[no-any-return]
        if dynamo or "torch._dynamo" in sys.modules:
            return _outside_of_dynamo()(self, input, hx)  # type: ignore[no-any-return]
        return self._forward(input, hx)

    def _forward(
        self, given: Tensor | PackedSequence, hx: State | None
    ) -> tuple[Tensor | PackedSequence, State]:
        _check_tensor("weight_ih_l0", self.weight_ih_l0)
        if isinstance(given, PackedSequence):
            return self._forward_packed(given, hx)
        x = _check_tensor("input", given)
        if x.dim() not in (2, 3):
            raise ValueError(f"input: expected 2 or 3 axes, got {x.dim()}")
        batched = x.dim() == 3
        if not batched:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        hx = self._check_state(hx, x.size(1), batched)
        if hx is not None and not batched:
            hx = hx[0].unsqueeze(1), hx[1].unsqueeze(1)
        self._check_features(x)
        array = x.detach().numpy()
        _, sequences = check_sequences(array, None, self.input_size, array.dtype, batch_first=False)
        output, h_n, c_n = self._run(sequences.packing, x, hx)
        if not batched:
            return output.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))
        return output.transpose(0, 1) if self.batch_first else output, (h_n, c_n)

    def _forward_packed(
        self, given: PackedSequence, hx: State | None
    ) -> tuple[PackedSequence, State]:
        """The same where the input is the time loop's own layout; states change places for it."""
        x = _check_tensor("input", given.data)
        if x.dim() != 2:
            raise ValueError(f"input: expected packed data of 2 axes, got {x.dim()}")
        self._check_features(x)
        packing = _packing_of(given.batch_sizes, len(x))
        hx = self._check_state(hx, packing.batch, batched=True)
        if hx is not None:
            hx = self.permute_hidden(hx, given.sorted_indices)
        output, *state = self._run(packing, x, hx)
        indices = given.sorted_indices, given.unsorted_indices
        return (
            PackedSequence(output, given.batch_sizes, *indices),
            self.permute_hidden(tuple(state), given.unsorted_indices),
        )

    def _run(self, packing: Packing, x: Tensor, hx: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, B, I) or (rows, I), states (runs, B, …) -> output like x, h_n, c_n."""
        tensors = [weight for run in self.all_weights for weight in run]
        own = tensors[0].dtype
        for name, tensor in zip(("input", "h_0", "c_0"), (x, *(hx or ())), strict=False):
            if tensor.dtype != own:
                raise ValueError(f"{name}: expected {own}, as weights have, got {tensor.dtype}")
        stack = _stack_of(
            self.input_size, self.hidden_size, self.num_layers, bool(self.bidirectional),
            self.bias, self.proj_size, _DTYPES[own],
        )  # fmt: skip
        inputs = (x, *(hx or (None, None)), *tensors)
        records = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        weights = self._kept.take(stack, tensors, records=records)
        seed = None
        if self.training and self.dropout and self.num_layers > 1:
            seed = int(torch.randint(2**63 - 1, ()))
        call = _Call(stack, packing, self.dropout, seed)
        if records:
            return _Run.apply(call, weights, *inputs)  # type: ignore[no-any-return]
        return call.forward(weights, *inputs[:3], keep=False)[0]

    def _check_features(self, x: Tensor) -> None:
        if x.size(-1) != self.input_size:
            raise RuntimeError(f"input: expected {self.input_size} features, got {x.size(-1)}")

    def _check_state(self, hx: object, batch: int, batched: bool) -> State | None:
        if hx is None:
            return None
        h_0, c_0 = check_pair("hx", hx, "(h_0, c_0) of tensors")
        runs = self.num_layers * (2 if self.bidirectional else 1)
        axes = (runs, batch) if batched else (runs,)
        for name, state, size in (
            ("h_0", h_0, self.proj_size or self.hidden_size), ("c_0", c_0, self.hidden_size)
        ):  # fmt: skip
            shape = tuple(_check_tensor(name, state).shape)
            if shape != (*axes, size):
                raise RuntimeError(f"{name}: expected size {(*axes, size)}, got {shape}")
        return h_0, c_0

    # --- what weights are derived, and when they are looked at again ------------------------------

    def flatten_parameters(self) -> None:
        """As in `torch.nn.LSTM`; the next call also sees what was written past torch's notice."""
        super().flatten_parameters()
        self._look_again()

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`."""
        self._look_again()
        module: Self = super().train(mode)
        return module

    def _look_again(self) -> None:
        if "_kept" in self.__dict__:  # not yet while torch's constructor runs
            self._kept.trusted = False


@lru_cache(maxsize=1)
def _outside_of_dynamo() -> Callable[..., Any]:
    """`LSTM._forward`, which torch.compile calls instead of looking into it."""
    return torch.compiler.disable(LSTM._forward)  # type: ignore[no-any-return]


# --- layouts, sizes and tensors -------------------------------------------------------------------


@lru_cache(maxsize=64)
def _stack_of(
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    bias: bool,
    proj_size: int,
    dtype: Any,
) -> Stack:
    variant = Variant(proj_size=proj_size)
    return Stack(input_size, hidden_size, num_layers, bidirectional, bias, dtype, variant=variant)


def _check_tensor(name: str, value: object) -> Tensor:
    """Return a dense tensor of float32 or float64 on the CPU."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got a {type(value).__name__}")
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise ValueError(
            f"{name}: expected a dense tensor on the CPU, where fastlstm computes, got "
            f"{value.layout} on {value.device}"
        )
    if value.dtype not in _DTYPES:
        raise TypeError(
            f"{name}: expected torch.float32 or torch.float64, got {value.dtype}; convert it by "
            f"{'module' if name.startswith('weight') else name}.float()"
        )
    return value


def _packing_of(batch_sizes: Tensor, rows: int) -> Packing:
    """The layout of a PackedSequence: sequences are the longest first."""
    sizes = batch_sizes.numpy()
    if not (len(sizes) and sizes[-1] > 0 and (np.diff(sizes) <= 0).all() and sizes.sum() == rows):
        raise ValueError(
            "input: expected a PackedSequence whose batch_sizes do not grow and add up to the "
            f"{rows} rows of its data, got {batch_sizes.tolist()!s:.80}"
        )
    batch = check_extent("input, its batch", int(sizes[0]))
    check_extent("input, its rows T * B", len(sizes), batch)
    return Packing(len(sizes), batch, np.searchsorted(-sizes, -np.arange(batch), side="left"))


# --- weights --------------------------------------------------------------------------------------


class _Weights:
    """Arrays over the memory of tensors, what is derived from them, and when all of it holds."""

    def __init__(self, stack: Stack, tensors: Sequence[Tensor]) -> None:
        self.key = _key(stack, tensors)
        arrays = {}
        for (name, shape), tensor in zip(stack.parameter_shapes().items(), tensors, strict=True):
            if tuple(_check_tensor(name, tensor).shape) != shape:
                raise RuntimeError(f"{name}: expected size {shape}, got {tuple(tensor.shape)}")
            if tensor.dtype != tensors[0].dtype:
                raise TypeError(f"{name}: expected {tensors[0].dtype}, got {tensor.dtype}")
            arrays[name] = _array_of(tensor)
        self.sums = _sums(tensors)
        self.parameters = Parameters.over(arrays)
        self.panels = WeightCache(self.parameters)


class _Kept:
    """The weights of a module's last call; no part of what is copied or pickled."""

    def __init__(self) -> None:
        self._weights: _Weights | None = None
        self.trusted = False  # that nothing but version counters need be looked at

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()

    def take(self, stack: Stack, tensors: Sequence[Tensor], *, records: bool) -> _Weights:
        """What a call needs of the weights as they are now."""
        trusted, self.trusted = self.trusted and not records, False
        found = self._weights
        if (
            found is None
            or found.key != _key(stack, tensors)
            or not (trusted or np.array_equal(found.sums, _sums(tensors)))
        ):
            found = _Weights(stack, tensors)
        self._weights = found
        self.trusted = not records and not any(tensor.is_inference() for tensor in tensors)
        return found


def _key(stack: Stack, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Equal as long as the same memory holds the weights, and no operation of torch wrote there."""
    return stack, *(
        (t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.shape, t.stride())
        for t in tensors
    )


def _array_of(tensor: Tensor) -> Array:
    """A tensor's memory; a copy only of one that is not C-contiguous."""
    return compact(tensor.detach().numpy())


def _sums(tensors: Sequence[Tensor]) -> Array:
    """Sums over the bits of weights, in columns; of few weights the bits themselves."""
    sums = []
    for tensor in tensors:
        words = _array_of(tensor).reshape(-1).view(np.uint32)
        if words.size % 2 == 0:
            words = words.view(np.uint64)
        whole = words.size // _COLUMNS * _COLUMNS
        if whole:
            sums.append(np.add.reduce(words[:whole].reshape(-1, _COLUMNS), axis=0))
        sums.append(words[whole:])
    return np.concatenate(sums)


# --- the function ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What forward needs beside tensors, and backward once more."""

    stack: Stack
    packing: Packing
    dropout: float
    seed: int | None  # of the dropout masks; None: no dropout

    def forward(
        self, weights: _Weights, x: Tensor, h_0: Tensor | None, c_0: Tensor | None, *, keep: bool
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[LayerRun]]:
        """(output, h_n, c_n), and what backward needs if `keep`."""
        masks = NO_MASKS
        if self.seed is not None:
            masks = Masks(Dropouts(between_layers=self.dropout), np.random.default_rng(self.seed))
            keep = True  # which masks need
        h, c = self._state(h_0, self.stack.state_size), self._state(c_0, self.stack.hidden_size)
        with at_most(torch.get_num_threads()):
            output, layers = self.stack.forward(
                weights.panels, self.packing, self._rows(x), h, c,
                zero_state=h_0 is None, keep=keep, masks=masks,
            )  # fmt: skip
        # The tape's output is its own: who has the tensor may write to it.
        given = (output.copy() if keep else output).reshape(*x.shape[:-1], self.stack.width)
        return (
            torch.from_numpy(given),
            torch.from_numpy(self.packing.unsort(h)),
            torch.from_numpy(self.packing.unsort(c)),
        ), layers

    def backward(
        self,
        weights: _Weights,
        layers: list[LayerRun],
        d_output: Tensor | None,
        d_h_n: Tensor | None,
        d_c_n: Tensor | None,
        *,
        need_x: bool,
        need_weights: bool,
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Gradients of x (rows, I), h_0, c_0 and the weights; None stands for zeros."""
        stack = self.stack
        if d_output is None:
            d_rows = np.zeros((self.packing.rows, stack.width), stack.dtype)
        else:
            d_rows = self._rows(d_output)
        d_h, d_c = self._state(d_h_n, stack.state_size), self._state(d_c_n, stack.hidden_size)
        with at_most(torch.get_num_threads()):
            d_x, grads = stack.backward(
                weights.parameters, weights.panels, self.packing, layers, d_rows, d_h, d_c,
                need_x=need_x, need_weights=need_weights,
            )  # fmt: skip
        return d_x, self.packing.unsort(d_h), self.packing.unsort(d_c), grads

    def _rows(self, x: Tensor) -> Array:
        """(T, B, features) or (rows, features) -> (rows, features): its memory, or a copy."""
        array = x.detach().numpy()
        if not array.flags.c_contiguous:
            array = _scratch.copy(array)
        rows: Array = array.reshape(self.packing.rows, array.shape[-1])
        return rows

    def _state(self, state: Tensor | None, size: int) -> Array:
        """A copy, or zeros."""
        if state is None:
            return np.zeros((self.stack.runs, self.packing.batch, size), self.stack.dtype)
        return self.packing.sort(state.detach().numpy())


class _Run(torch.autograd.Function):
    """All layers as one function of x, the initial states and the weights."""

    @staticmethod
    def forward(ctx: Any, call: _Call, weights: _Weights, *inputs: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        outputs, ctx.layers = call.forward(weights, *inputs[:3], keep=True)
        ctx.call, ctx.weights = call, weights
        ctx.save_for_backward(*inputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> Any:
        x, h_0, c_0, *tensors = ctx.saved_tensors  # raises if one was changed, or the graph freed
        call, weights = ctx.call, ctx.weights
        if weights.key != _key(call.stack, tensors):
            weights = _Weights(call.stack, tensors)  # the same values, moved to other memory
        layers, ctx.layers = ctx.layers, None
        if layers is None:  # a retained graph, once more
            layers = call.forward(weights, x, h_0, c_0, keep=True)[1]
        _, _, *needs = ctx.needs_input_grad
        d_x, d_h_0, d_c_0, grads = call.backward(
            weights, layers, *d_outputs, need_x=needs[0], need_weights=any(needs[3:])
        )
        found = (d_x.reshape(x.shape), d_h_0, d_c_0, *grads.values())
        absent = (None,) * (len(needs) - len(found))
        grads_of = [
            torch.from_numpy(array) if need else None
            for array, need in zip((*found, *absent), needs, strict=True)
        ]
        if torch.is_grad_enabled():  # create_graph=True
            grads_of = [
                grad if grad is None else _Once.apply(grad.requires_grad_()) for grad in grads_of
            ]
        return None, None, *grads_of


class _Once(torch.autograd.Function):
    """A gradient that cannot be differentiated: who tries gets an error, and not a part of it."""

    @staticmethod
    def forward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad

    @staticmethod
    def backward(_ctx: Any, *_d_grads: Tensor) -> NoReturn:
        raise RuntimeError(
            "fastlstm.interop.torch.LSTM can be differentiated once: for gradients of gradients "
            "use torch.nn.LSTM"
        )

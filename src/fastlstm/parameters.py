"""Parameters: the named arrays of a layer or a network, and the one door through which they change.

Whatever is derived from weights (a tape that backward will read, a packed copy) remembers the
version under which it was made. So weights can be read by anybody and written only where the
version moves: writing to an array obtained from here raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_array, check_generator, check_names


class Parameters(Mapping[str, Array]):
    """Named float arrays, read-only from outside, with a version that moves at every change.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        The initial values; copied.

    Examples
    --------
    >>> import numpy as np
    >>> parameters = Parameters({"weight": np.zeros(2, np.float32)})
    >>> with parameters.editing() as edited:
    ...     edited["weight"][:] = 1
    >>> parameters["weight"], parameters.version
    (array([1., 1.], dtype=float32), 2)
    """

    __slots__ = ("_counters", "_owned", "_parts")

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._own({name: np.array(array, order="C") for name, array in arrays.items()}, [0])

    @classmethod
    def join(cls, parts: Mapping[str, Parameters]) -> Parameters:
        """The parameters of a network: those of its layers under the names "layer.parameter".

        The arrays are shared with the layers, and a change moves the version of every layer.
        """
        joined = cls.__new__(cls)
        joined._share(dict(parts))
        return joined

    @classmethod
    def over(cls, arrays: Mapping[str, Array]) -> Parameters:
        """Parameters that share the memory of these C-contiguous arrays, and freeze the arrays.

        Who writes to that memory by another way makes new parameters over it afterwards: the
        version of these does not move.
        """
        shared = cls.__new__(cls)
        shared._own(dict(arrays), [0])
        return shared

    def _own(self, arrays: dict[str, Array], counter: list[int]) -> None:
        self._parts: dict[str, Parameters] | None = None  # of a network
        self._owned = arrays
        self._counters: tuple[list[int], ...] = (counter,)
        self._freeze()

    def _share(self, parts: dict[str, Parameters]) -> None:
        self._parts = parts
        self._owned = {
            f"{prefix}.{name}": array
            for prefix, part in parts.items()
            for name, array in part._owned.items()
        }
        self._counters = tuple(counter for part in parts.values() for counter in part._counters)

    def __getstate__(self) -> tuple[dict[str, Parameters] | None, dict[str, Array], list[int]]:
        # A network's are those of its parts, so that a copy of both shares arrays as they do.
        if self._parts is not None:
            return self._parts, {}, []
        return None, self._owned, self.counter

    def __setstate__(
        self, state: tuple[dict[str, Parameters] | None, dict[str, Array], list[int]]
    ) -> None:
        parts, arrays, counter = state
        if parts is not None:
            self._share(parts)
        else:
            # An array that was read-only comes out of a pickle as a view of bytes, for ever so.
            owned = {k: a if a.flags.owndata else a.copy() for k, a in arrays.items()}
            self._own(owned, counter)

    @property
    def version(self) -> int:
        """A number that grows at every change."""
        counters = self._counters
        if len(counters) == 1:  # a layer's, which reads it in every call
            return counters[0][0]
        return sum(counter[0] for counter in counters)

    @property
    def counter(self) -> list[int]:
        """The list whose only number is a layer's version, for who looks too often for a call."""
        (counter,) = self._counters
        return counter

    def __getitem__(self, name: str) -> Array:
        # A fresh view each time: assigning to its shape or dtype changes that view alone.
        return self._owned[name].view()

    def __iter__(self) -> Iterator[str]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.items())
        return f"Parameters(version={self.version}: {shapes})"

    def state_dict(self) -> dict[str, Array]:
        """Copies of all arrays under their names."""
        return {name: array.copy() for name, array in self._owned.items()}

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Take the values of arrays under the same names; either all change or none.

        Raises
        ------
        TypeError
            If an entry is not an array, or has another dtype.
        ValueError
            If names are missing or unknown, or a shape differs.
        """
        given = check_names("state_dict", state_dict, self._owned)
        checked = {
            name: check_array(f"state_dict[{name!r}]", given[name], owned.dtype, owned.shape)
            for name, owned in self._owned.items()
        }
        # A caller may hand in our own views in another order; copies keep one from feeding on
        # what another has just become.
        checked = {name: array.copy() for name, array in checked.items()}
        with self.updating() as owned:
            for name, array in checked.items():
                owned[name][...] = array

    @contextmanager
    def editing(self) -> Iterator[dict[str, Array]]:
        """Change weights by hand: ``with layer.editing() as parameters: parameters[...] = ...``.

        What is handed out are copies; they are taken over when the block ends, and not at all
        when it raises. The version moves, so tapes made before are stale.
        """
        edited = self.state_dict()
        yield edited
        self.load_state_dict(edited)

    @contextmanager
    def updating(self) -> Iterator[Mapping[str, Array]]:
        """The owned arrays themselves, writable inside of the block: for optimisers.

        The version moves before the first write and after the last one, so that nothing made
        from half-updated weights passes for fresh.
        """
        self._move_version()
        for array in self._owned.values():
            array.flags.writeable = True
        try:
            yield self._owned
        finally:
            self._freeze()
            self._move_version()

    def _freeze(self) -> None:
        for array in self._owned.values():
            array.flags.writeable = False

    def _move_version(self) -> None:
        for counter in self._counters:
            counter[0] += 1


class Given:
    """Arrays for a layer to begin with; its constructor takes them in place of a generator."""

    __slots__ = ("_arrays",)

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def take(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> dict[str, Array]:
        """The arrays, if they are exactly those that a layer with these parameters has."""
        given = check_names("arrays", self._arrays, shapes)
        return {
            name: check_array(f"arrays[{name!r}]", given[name], dtype, shape)
            for name, shape in shapes.items()
        }


class Layer:
    """What every layer with weights has: `parameters`, `editing` and the two state_dict calls.

    The weights can also be read as attributes: ``layer.weight``. What a constructor has set is
    fixed: sizes that no longer belong to the weights would read outside of them. Every argument of
    a constructor but `rng` is an attribute of the same name, which is all that `get_config` asks.
    """

    _parameters: Parameters

    @classmethod
    def _build(cls, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """A layer of what `get_config` and `state_dict` gave, without drawing random numbers.

        Arguments that have a default may be absent. Every name, shape and dtype is checked before
        anything of the sizes in `config` is made; the arrays are copied. Raises TypeError and
        ValueError, as the constructor and `load_state_dict` do.
        """
        arguments = _arguments(cls)
        missing = [k for k, a in arguments.items() if a.default is a.empty and k not in config]
        unknown = [str(name) for name in config if name not in arguments]
        if missing or unknown:
            raise ValueError(f"config: missing {missing}, unknown {unknown}")
        constructor: Callable[..., Self] = cls
        return constructor(**config, rng=Given(arrays))

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor but `rng`, as JSON can hold it.

        Returns
        -------
        dict of str to object
            ``LSTM(**lstm.get_config())`` has the same sizes and options, and new weights.
        """
        return {name: _plain(getattr(self, name)) for name in _arguments(type(self))}

    def __repr__(self) -> str:
        arguments, config = _arguments(type(self)), self.get_config()
        shown = [
            repr(config[name]) if argument.kind is not argument.KEYWORD_ONLY
            else f"{name}={config[name]!r}"
            for name, argument in arguments.items()
            if argument.kind is not argument.KEYWORD_ONLY
            or config[name] != _plain(argument.default)
        ]  # fmt: skip
        return f"{type(self).__name__}({', '.join(shown)})"

    def _begin(
        self,
        rng: object,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: np.dtype[Any],
        draw: Callable[[np.random.Generator], Mapping[str, Array]],
    ) -> None:
        """Own parameters of these shapes: those drawn from the constructor's `rng`, or `Given`."""
        if isinstance(rng, Given):
            self._parameters = Parameters(rng.take(shapes, dtype))
        else:
            self._parameters = Parameters(draw(check_generator("rng", rng)))

    def __setattr__(self, name: str, value: object) -> None:
        parameters = self.__dict__.get("_parameters", ())
        if name in parameters:
            raise AttributeError(
                f"{type(self).__name__}.{name}: weights change through load_state_dict, an "
                "optimiser, or `with layer.editing() as parameters:`"
            )
        if "_parameters" in self.__dict__ and name in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.{name}: fixed at construction")
        super().__setattr__(name, value)

    def parameters(self) -> Parameters:
        """The layer's named weights, read-only."""
        return self._parameters

    @contextmanager
    def editing(self) -> Iterator[dict[str, Array]]:
        """Change weights by hand; see `Parameters.editing`."""
        with self._parameters.editing() as edited:
            yield edited

    def state_dict(self) -> dict[str, Array]:
        """Copies of all weights under PyTorch's names."""
        return self._parameters.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Take weights under PyTorch's names; see `Parameters.load_state_dict`."""
        self._parameters.load_state_dict(state_dict)

    def __getattr__(self, name: str) -> Array:
        # Reached only for names that are no ordinary attribute.
        parameters = self.__dict__.get("_parameters")
        if parameters is not None and name in parameters:
            array: Array = parameters[name]
            return array
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _arguments(layer: type[Layer]) -> dict[str, inspect.Parameter]:
    """The arguments, but rng, of the constructor of this class, or of ours that it derives from."""
    ours = next(c for c in layer.__mro__ if c.__module__.partition(".")[0] == __package__)
    arguments = dict(inspect.signature(ours).parameters)
    arguments.pop("rng", None)
    return arguments


def _plain(value: Any) -> Any:
    """The value of an argument as JSON can hold it."""
    if isinstance(value, (np.dtype, type)):
        return np.dtype(value).name
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value

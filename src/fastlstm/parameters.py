"""Parameters: the named arrays of a layer or a network, and the one door through which they change.

Whatever is derived from weights (a tape that backward will read, a packed copy) remembers the
version under which it was made. So weights can be read by anybody and written only where the
version moves: writing to an array obtained from here raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from fastlstm._validate import Array, check_array, check_names


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


class Layer:
    """What every layer with weights has: `parameters`, `editing` and the two state_dict calls.

    The weights can also be read as attributes: ``layer.weight``. What a constructor has set is
    fixed: sizes that no longer belong to the weights would read outside of them.
    """

    _parameters: Parameters

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

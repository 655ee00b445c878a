"""The tape: what a layer's forward keeps for its backward, as one opaque object."""

from __future__ import annotations

from typing import Any, NoReturn

from fastlstm._validate import Shape


class Tape:
    """What backward needs of one forward call: opaque, for one use, bound to layer and weights.

    Parameters
    ----------
    owner : object
        The layer that made it.
    version : int
        The version of the owner's parameters at that time.
    saved : tuple
        Whatever the owner's backward needs.
    d_shape : tuple of int
        Shape of the gradient that backward expects for the output.
    """

    __slots__ = ("_owner", "_saved", "_version", "d_shape")

    def __init__(self, owner: object, version: int, saved: tuple[Any, ...], d_shape: Shape) -> None:
        self._owner = owner
        self._version = version
        self._saved: tuple[Any, ...] | None = saved
        self.d_shape = d_shape

    def __repr__(self) -> str:
        state = "used" if self._saved is None else "unused"
        return f"<Tape of {type(self._owner).__name__}, output {self.d_shape}, {state}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Tape serves one backward: it cannot be copied or pickled")

    def take(self, version: int) -> tuple[Any, ...]:
        """Return what was saved, once; `version` is the owner's parameters' one now.

        Raises
        ------
        RuntimeError
            If the tape was used before, or the weights have changed since it was made.
        """
        if self._saved is None:
            raise RuntimeError("tape: used already; each forward's tape serves one backward")
        if version != self._version:
            raise RuntimeError(
                f"tape: stale, the weights changed since forward (version {self._version} then, "
                f"{version} now); run forward again"
            )
        saved, self._saved = self._saved, None
        return saved


def check_tape(tape: object, owner: object) -> Tape:
    """Return the tape if it is one that `owner` made.

    Raises
    ------
    TypeError
        If it is no tape.
    ValueError
        If another layer made it.
    """
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected the Tape that forward returned, got {type(tape).__name__}")
    if tape._owner is not owner:
        raise ValueError(f"tape: {tape!r} was made by another layer")
    return tape

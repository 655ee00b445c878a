from typing import Any

from fastlstm._validate import Array

IN_USE: str

def stale(opened: int, now: int) -> str: ...

class Stepper:
    def _open(
        self,
        layers: list[tuple[Array, Array, Array]],
        h: Array,
        c: Array,
        pre: Array,
        features: int,
        counter: list[int],
        version: int,
        hold: Any,
    ) -> None: ...
    def _state(self) -> tuple[Array, Array]: ...
    def _set_state(self, h: Array, c: Array) -> None: ...
    def step(self, x_t: Array, *, out: Array | None = None) -> Array: ...

"""Which part of an LSTM a run over its rows is: the names of its weights, and its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Direction:
    """One direction of one layer."""

    index: int  # among the states
    suffix: str  # of the parameters' names,
    weight_ih: str  # and the names
    weight_hh: str
    bias_ih: str
    bias_hh: str
    backwards: bool  # from the last step to the first
    second: bool  # of its layer: it adds to the d_x that the first one wrote
    columns: slice  # of the layer's output

"""What a forecaster keeps beside its network: how series are scaled, and where they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_flag
from fastlstm.tasks.forecasting.data import Layout, Scale
from fastlstm.tasks.forecasting.series import Series
from fastlstm.tasks.forecasting.time_index import check_saved_index, index_from_json, index_to_json


@dataclass(frozen=True)
class Memory:
    """Of the series that were learnt.

    Attributes
    ----------
    layout : Layout
    several : bool
        They came as a list.
    scales : list of Scale
        Of each, from its training part.
    known_scale : Scale
        Of what is known ahead, from all training parts.
    history : ndarray (S, L, D)
        The last rows of each, as many as the lookback.
    known : ndarray (S, L, K)
        What was known at these.
    flat : list of bool
        Which series came without an axis of variables.
    indices : list
        What stood beside the rows: an index, None, or as long as nobody asks the JSON object of a
        file, for which pandas is not needed.
    """

    layout: Layout
    several: bool
    scales: list[Scale]
    known_scale: Scale
    history: Array
    known: Array
    flat: list[bool]
    indices: list[Any]

    @classmethod
    def of(
        cls,
        layout: Layout,
        several: bool,
        series: Sequence[Series],
        known: Sequence[Array],
        *,
        training: Sequence[int],
        lookback: int,
    ) -> Self:
        """Of series with what was known at their rows, the first `training` of which were seen."""
        heads = [one[:rows] for one, rows in zip(known, training, strict=True)]
        return cls(
            layout,
            several,
            [Scale.of("y", one.values[:rows]) for one, rows in zip(series, training, strict=True)],
            Scale.of("X", np.concatenate(heads)),
            np.stack([one.values[-lookback:] for one in series]),
            np.stack([one[len(one) - lookback :] for one in known]),
            [one.flat for one in series],
            [one.tail(lookback).index for one in series],
        )

    def tails(self) -> list[Series]:
        """The last rows of each series."""
        for k, index in enumerate(self.indices):
            if isinstance(index, dict):
                self.indices[k] = index_from_json(index, self.history.shape[1])
        return [
            Series(values, index, self.layout.names, flat)
            for values, index, flat in zip(self.history, self.indices, self.flat, strict=True)
        ]

    def index_name(self) -> str | None:
        """Of the first series' index."""
        index = self.indices[0]
        name = index.get("name") if isinstance(index, dict) else getattr(index, "name", None)
        return None if name is None else str(name)

    def scale_of(self, series: Series) -> Scale:
        """That of training; if several series were learnt, the series' own."""
        return Scale.of("y", series.values) if self.several else self.scales[0]

    def to_file(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """A JSON object and arrays for `from_file`."""
        header = self.layout.to_json() | {
            "several": self.several,
            "flat": self.flat,
            "index": [
                index if isinstance(index, dict) else index_to_json(index) for index in self.indices
            ],
        }
        arrays = {
            "history": self.history,
            "history_known": self.known,
            "mean": np.stack([scale.mean for scale in self.scales]),
            "deviation": np.stack([scale.deviation for scale in self.scales]),
            "known_mean": self.known_scale.mean,
            "known_deviation": self.known_scale.deviation,
        }
        return header, arrays

    @classmethod
    def from_file(
        cls,
        header: Mapping[str, Any],
        arrays: Mapping[str, Array],
        *,
        lookback: int,
        calendar: tuple[str, ...],
    ) -> Self:
        """What `to_file` was called of; raises KeyError, TypeError or ValueError if it was not."""
        count, _, variables = arrays["history"].shape
        layout = Layout.from_json(header, variables, calendar)
        expected = {
            "history": (count, lookback, variables),
            "history_known": (count, lookback, layout.known),
            "mean": (count, variables),
            "deviation": (count, variables),
            "known_mean": (layout.known,),
            "known_deviation": (layout.known,),
        }
        for name, shape in expected.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite float64 of shape {shape}")
        flat, indices = header["flat"], header["index"]
        several = check_flag("several", header["several"])
        if len(flat) != count or len(indices) != count or not (count == 1 or (several and count)):
            raise ValueError(f"history: expected {len(flat)} series, got {count}")
        flat = [check_flag("flat", one) for one in flat]
        indices = [check_saved_index(one) for one in indices]
        scales = [Scale(*pair) for pair in zip(arrays["mean"], arrays["deviation"], strict=True)]
        known_scale = Scale(arrays["known_mean"], arrays["known_deviation"])
        return cls(
            layout, several, scales, known_scale, arrays["history"], arrays["history_known"],
            flat, indices,
        )  # fmt: skip

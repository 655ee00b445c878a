"""Pictures as PNG. matplotlib is imported only here, and only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

# Written into every PNG of ours, so that a picture of somebody else's is never overwritten.
SOFTWARE = "fastlstm loss curve"
CONFUSION = "fastlstm confusion matrix"
FORECAST = "fastlstm forecast"
ATTENTION = "fastlstm attention"
HOW_TO_GET = "no loss curve: it needs matplotlib: pip install 'fastlstm[plot]'"

# Cells have their numbers in them up to so many labels.
_NUMBERED = 20

Points = tuple[Sequence[float], Sequence[float]]


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def is_ours(path: Path, software: str = SOFTWARE) -> bool:
    """Whether a PNG was written here: by `loss_curve`, or as `software` says."""
    with path.open("rb") as file:
        return software.encode() in file.read(4096)


def loss_curve(
    path: Path, training: Points, held_out: Points, title: str, unit: str = "character"
) -> None:
    """Draw bits per token against the step, of the training and of the held-out text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*training, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(*_block_means(training), color="tab:blue", label="training")
    axes.plot(*held_out, "o-", color="tab:orange", markersize=4, label="held out")
    axes.set(xlabel="step", ylabel=f"bits per {unit}", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=120, metadata={"Software": SOFTWARE})


def confusion_matrix(
    path: Path, counts: Sequence[Sequence[int]], labels: Sequence[str], title: str
) -> None:
    """Draw how often each label (rows) was taken for each (columns), shaded within a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = min(4 + 0.5 * len(labels), 20)
    figure = Figure(figsize=(size, size * 0.85), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= _NUMBERED:
        for i, row in enumerate(counts):
            for k, count in enumerate(row):
                colour = "white" if shares[i][k] > 0.5 else "black"
                axes.text(k, i, str(count), ha="center", va="center", color=colour)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, labels)
    axes.set(xlabel="predicted", ylabel="label", title=title)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": CONFUSION})


def save(figure: Any, path: Path, software: str) -> None:
    """Write a figure of matplotlib's, with `software` in it for `is_ours`."""
    figure.savefig(path, format="png", dpi=120, metadata={"Software": software})


def _block_means(points: Points, blocks: int = 50) -> Points:
    """Means over successive points, so that about `blocks` of them are left."""
    size = max(1, len(points[0]) // blocks)
    starts = range(0, len(points[0]) - size + 1, size)
    x, y = ([fmean(values[start : start + size]) for start in starts] for values in points)
    return x, y

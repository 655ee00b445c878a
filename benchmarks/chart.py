"""A picture of what ``benchmarks.peers`` saved: ``python -m benchmarks.chart *.json --out x.png``.

A panel for each mode and number of threads; in it, a row for each shape and a mark for each peer,
at the peer's time over ours.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

# One colour and mark a peer in all panels, whoever takes part.
STYLES = {
    "torch": ("#d1495b", "o"),
    "onnxruntime": ("#2e6f95", "s"),
    "openvino": ("#7b5ea7", "D"),
    "jax": ("#e0a030", "^"),
    "numpy": ("#888888", "v"),
    "in-torch": ("#3a8f5c", "P"),
}
WIDTH, ROW = 10.0, 0.3  # inches
# Marks beyond stand at the edge, so that there is room around 1.
MOST = 20.0
MODES = {
    "infer": "inference",
    "train": "training step",
    "step": "one step of a stream",
    "memory": "memory of a training step",
}
Records = list[dict[str, Any]]


def name(shape: dict[str, int]) -> str:
    text = " ".join(f"{letter}{shape[letter]}" for letter in "TBIH")
    return text if shape["layers"] == 1 else f"{text} L{shape['layers']}"


def panels(files: list[dict[str, Any]]) -> list[tuple[str, Records]]:
    """A title and the records of each mode and number of threads, in this order."""
    found: dict[tuple[str, int], Records] = {}
    for file in files:
        for record in file["measurements"]:
            found.setdefault((record["mode"], record["threads"]), []).append(record)
    return [
        (f"{MODES[mode]}, {threads} thread{'s' if threads > 1 else ''}", records)
        for (mode, threads), records in sorted(
            found.items(), key=lambda item: (list(MODES).index(item[0][0]), item[0][1])
        )
    ]


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """Each peer over ours: of times, or of memory at the peak."""
    if "ratios" in record:
        return dict(record["ratios"])
    ours = record["ours_bytes"]["peak"]
    return {peer: growth["peak"] / ours for peer, growth in record["peers_bytes"].items()}


def draw(files: list[dict[str, Any]], path: str) -> None:
    """Panels of the same shapes stand side by side, two in a row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    every = panels(files)
    columns = min(2, len(every))
    lines = [every[k : k + columns] for k in range(0, len(every), columns)]
    heights = [max(len(records) for _, records in line) for line in lines]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        size = (WIDTH, ROW * sum(heights) + 0.9 * len(lines) + 0.4)
        figure = Figure(figsize=size, layout="constrained", dpi=160)
        axes = figure.subplots(
            len(lines), columns, squeeze=False, sharex=True, height_ratios=heights
        )
        axes[0, 0].set_xscale("log")
        least = min(min(ratios(record).values()) for _, records in every for record in records)
        axes[0, 0].set_xlim(0.9 * min(least, 0.9), MOST)
        handles: dict[str, Any] = {}
        for row, line in zip(axes, lines, strict=True):
            for axis in row[len(line) :]:
                axis.set_visible(False)
            for axis, (title, records) in zip(row, line, strict=False):
                handles |= draw_panel(axis, title, records)
        label = (
            "the peer's time, or memory, over ours: right of the line, fastlstm needs less"
            f" ({MOST:g}: or more)"
        )
        figure.supxlabel(label, fontsize=9)
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=5, frameon=False
        )
        figure.savefig(path)


def draw_panel(axis: Any, title: str, records: Records) -> dict[str, Any]:
    """One mode and number of threads; gives a handle for each peer."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    handles = {}
    peers = [peer for peer in STYLES if any(peer in ratios(record) for record in records)]
    for peer in peers:
        colour, mark = STYLES[peer]
        every = [(ratios(record).get(peer), y) for y, record in enumerate(records)]
        points = [(min(ratio, MOST), y) for ratio, y in every if ratio is not None]
        handles[peer] = axis.scatter(
            *zip(*points, strict=True), s=26, color=colour, marker=mark, alpha=0.9, zorder=3
        )
        handles[peer].set_clip_on(False)
    axis.axvline(1, color="black", linewidth=1.2, zorder=2)
    axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_tick_params(labelbottom=True)
    axis.grid(axis="both", color="#dddddd", linewidth=0.6, zorder=0)
    axis.set_yticks(range(len(records)), [name(record["shape"]) for record in records])
    axis.set_ylim(len(records) - 0.5, -0.5)
    axis.set_title(title, fontsize=10, fontweight="bold")
    return handles


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="what peers --json wrote")
    parser.add_argument("--out", required=True, metavar="FILE.png")
    arguments = parser.parse_args(argv)
    files = []
    for path in arguments.files:
        with open(path, encoding="utf-8") as file:
            files.append(json.load(file))
    draw(files, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

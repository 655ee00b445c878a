"""What results/ holds, as a table on the screen, and as Markdown and plots for the documentation.

    python -m benchmarks.quality.report

writes the results of docs/quality.md, which stand between two comments there, and the plots
docs/quality/TASK.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.quality.harness import (
    ELMAN,
    OURS,
    PLAIN,
    RESULTS,
    TORCH,
    Bar,
    Summary,
    Task,
    current_runs,
    read_results,
    summaries,
)
from benchmarks.quality.tasks import NAMES, load

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
BEGIN = "<!-- results: written by python -m benchmarks.quality.report -->\n"
END = "<!-- end of results -->\n"
NETWORKS = (OURS, TORCH, PLAIN, ELMAN)
VERDICTS = {True: "met", False: "MISSED", None: "open"}


def all_met(task: Task, record: Mapping[str, Any]) -> bool:
    """No bar is missed; one that lacks a run to compare with is not."""
    found = summaries(task, record)
    return all(bar.met(found) is not False for bar in task.bars)


def show(task: Task, value: float) -> str:
    """A value as tables have it."""
    if task.percent:
        return f"{100 * value:.2f} %"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def show_summary(task: Task, summary: Summary) -> str:
    """Mean, and standard error where there are several runs."""
    if len(summary.values) < 2:
        return show(task, summary.mean)
    if task.percent:
        return f"{100 * summary.mean:.2f} ± {100 * summary.error:.2f} %"
    return f"{summary.mean:.3f} ± {summary.error:.3f}"


def rows(task: Task, record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Who, value, runs, and seconds of training on how many threads: measured, then published.

    What a baseline takes, which also tries what it has to choose, is beside the point.
    """
    for name, summary in summaries(task, record).items():
        seconds = threads = ""
        if name in NETWORKS:
            seconds = f"{statistics.median(summary.seconds):.0f}"
            threads = ", ".join(map(str, sorted(set(summary.threads))))
        yield name, show_summary(task, summary), str(len(summary.values)), seconds, threads
    for source, value in task.published.items():
        yield f"published: {source}", show(task, value), "", "", ""


def verdicts(task: Task, record: Mapping[str, Any]) -> Iterator[tuple[Bar, str]]:
    found = summaries(task, record)
    for bar in task.bars:
        yield bar, VERDICTS[bar.met(found)]


def timings(task: Task, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that belong to the present settings."""
    return [row for row in record["timings"] if row["settings"] == task.settings_of(OURS)]


def table(task: Task, record: Mapping[str, Any], *, bars: bool = True) -> str:
    """All of it, for a terminal."""
    better = "higher" if task.higher_is_better else "lower"
    lines = [f"\n{task.title}: {task.metric} ({better} is better)"]
    cells = list(rows(task, record))
    width = max([len(cell[0]) for cell in cells], default=0)
    lines.append(f"  {'':<{width}} {'':>18} {'runs':>5} {'seconds':>8} {'threads':>8}")
    lines += [f"  {a:<{width}} {b:>18} {c:>5} {d:>8} {e:>8}".rstrip() for a, b, c, d, e in cells]
    if bars:
        lines += [f"  bar: {bar.text}: {verdict}" for bar, verdict in verdicts(task, record)]
    for row in timings(task, record):
        lines.append(
            f"  a step of training on {_threads(row)}: {row['ours_ms']:.2f} ms, torch "
            f"{row['torch_ms']:.2f} ms, {row['ratio']:.2f} times as long"
        )
    return "\n".join(lines)


def _threads(row: Mapping[str, Any]) -> str:
    return "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"


# --- for the documentation ------------------------------------------------------------------------


def markdown(tasks: list[tuple[Task, Mapping[str, Any]]]) -> str:
    """A section for each task, and the speed of all."""
    parts = []
    for task, record in tasks:
        found = summaries(task, record)
        if not found:
            continue
        better = "higher" if task.higher_is_better else "lower"
        lines = [
            f"### {task.title}\n",
            f"{task.metric[0].upper()}{task.metric[1:]}; {better} is better.\n",
        ]
        lines += ["| | | runs | seconds | threads |", "|---|---|---|---|---|"]
        for name, value, *numbers in rows(task, record):
            strong = "**" if name == OURS else ""
            cells = [f"{strong}{name}{strong}", f"{strong}{value}{strong}", *numbers]
            lines.append(f"| {' | '.join(cells)} |")
        told = "; ".join(f"{bar.text}: {verdict}" for bar, verdict in verdicts(task, record))
        lines.append(f"\nBars: {told}.\n" if told else "")
        if OURS in found or TORCH in found:
            lines.append(f"![{task.title}, every run](quality/{task.name}.png)\n")
        parts.append("\n".join(lines))
    return "\n".join([_overview(tasks), *parts, _speed(tasks)])


def _overview(tasks: list[tuple[Task, Mapping[str, Any]]]) -> str:
    """A row for each task: our figure, torch's, a plain RNN's, and the best baseline's."""
    lines = ["### In short\n", "| task | | fastlstm | torch | plain RNN | best baseline |"]
    lines.append("|---|---|---|---|---|---|")
    for task, record in tasks:
        found = summaries(task, record)
        if OURS not in found:
            continue
        networks = [
            show_summary(task, found[name]) if name in found else "" for name in (TORCH, PLAIN)
        ]
        others = {name: one for name, one in found.items() if name not in NETWORKS}
        sign = 1 if task.higher_is_better else -1
        best = max(others, key=lambda name: sign * others[name].mean, default=None)
        baseline = f"{show_summary(task, others[best])} ({best})" if best else ""
        cells = [task.title, task.metric, f"**{show_summary(task, found[OURS])}**"]
        lines.append(f"| {' | '.join([*cells, *networks, baseline])} |")
    return "\n".join(lines) + "\n"


def _speed(tasks: list[tuple[Task, Mapping[str, Any]]]) -> str:
    timed = [(task, row) for task, record in tasks for row in timings(task, record)]
    if not timed:
        return ""
    lines = ["### Training beside torch\n", "| task | threads | ms a step | torch | ratio |"]
    lines.append("|---|---|---|---|---|")
    for task, row in timed:
        lines.append(
            f"| {task.title} | {row['threads']} | {row['ours_ms']:.2f} | {row['torch_ms']:.2f} | "
            f"{row['ratio']:.2f} |"
        )
    for threads in sorted({row["threads"] for _, row in timed}):
        ratios = [row["ratio"] for _, row in timed if row["threads"] == threads]
        mean = statistics.geometric_mean(ratios)
        lines.append(f"| geometric mean | {threads} | | | **{mean:.2f}** |")
    return "\n".join(lines) + "\n"


def plot(task: Task, record: Mapping[str, Any], path: Path) -> None:
    """Every run as a point, each system in a row; published figures as lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = current_runs(task, record)
    names = [name for name in task.systems if any(run["system"] == name for run in runs)][::-1]
    scale = 100 if task.percent else 1
    figure = Figure(
        figsize=(8, 1.2 + 0.4 * len(names) + 0.25 * len(task.published)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, name in enumerate(names):
        values = [scale * run["value"] for run in runs if run["system"] == name]
        colour = "tab:blue" if name == OURS else "tab:orange" if name == TORCH else "grey"
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.6)
        axes.plot(statistics.fmean(values), place, "|", color=colour, markersize=18)
    styles = ("--", ":", "-.", (0, (1, 4)), (0, (5, 5)))
    for k, (source, value) in enumerate(task.published.items()):
        axes.axvline(
            scale * value, color="black", linewidth=1, linestyle=styles[k % len(styles)],
            label=source,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(task.metric + (", %" if task.percent else ""))
    axes.set_title(task.title)
    axes.grid(axis="x", alpha=0.3)
    if task.published:
        figure.legend(loc="outside lower center", fontsize=8)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    arguments = parser.parse_args(argv)
    before, _, rest = arguments.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    plots = arguments.page.with_suffix("")
    plots.mkdir(exist_ok=True)
    tasks = [(task, read_results(task, arguments.results)) for task in map(load, NAMES)]
    for task, record in tasks:
        if summaries(task, record):
            plot(task, record, plots / f"{task.name}.png")
    text = f"{before}{BEGIN}\n{markdown(tasks)}\n{END}{after}"
    arguments.page.write_text(text, encoding="utf-8")
    print(arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

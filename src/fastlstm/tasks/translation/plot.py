"""The picture of what a translation looked at. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from fastlstm._extras import import_extra
from fastlstm._validate import Array

_END = "<end>"
_LARGEST = 24.0  # inches
_LONGEST = 20  # characters of a label
# Fonts that say they have what they have not, or have it in an order of their own.
_NO_FONTS = ("Last Resort", "cm", "STIX")


def figure(attention: Array, source_tokens: Sequence[str], tokens: Sequence[str]) -> Any:
    """A figure of matplotlib's: columns are source tokens, rows the tokens that were said."""
    import_extra("matplotlib", extra="plot", purpose="pictures of attention")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families, unknown = _families("".join([*source_tokens, *tokens, _END]))
    columns, rows = (
        [*(_label(token, unknown) for token in some), _END] for some in (source_tokens, tokens)
    )
    size = (
        min(1 + 0.45 * len(columns) + 0.09 * max(map(len, rows)), _LARGEST),
        min(1 + 0.35 * len(rows) + 0.09 * max(map(len, columns)), _LARGEST),
    )
    drawn = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    axes.imshow(attention, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.xaxis.tick_top()
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontfamily(families)
        label.set_parse_math(False)  # a dollar is a dollar
    return drawn


def _label(token: str, unknown: frozenset[str]) -> str:
    """A token without the blank before it; what would be nothing, or no line, is made visible.

    Characters that no font has are shown as their numbers, and long tokens cut.
    """
    shown = []
    for c in token.strip(" ") or "·":
        if not c.isprintable():
            shown.append(c.encode("unicode_escape").decode())
        else:
            shown.append(f"U+{ord(c):04X}" if c in unknown else c)
    label = "".join(shown)
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _families(text: str) -> tuple[list[str], frozenset[str]]:
    """Fonts that have the characters of a text together, and those that none has."""
    from matplotlib import font_manager, rcParams

    families = list(rcParams["font.family"])
    missing = set(filter(str.isprintable, text)) - _characters(
        font_manager.findfont(font_manager.FontProperties(family=families))
    )
    for font in _fonts() if missing else ():
        found = missing & _characters(font.fname)
        if found:
            families.append(font.name)
            missing -= found
        if not missing:
            break
    return families, frozenset(missing)


def _fonts() -> Iterable[Any]:
    from matplotlib import font_manager

    fonts = font_manager.fontManager.ttflist
    return [font for font in fonts if not font.name.startswith(_NO_FONTS)]


@lru_cache(maxsize=4096)
def _characters(path: str) -> frozenset[str]:
    """What a font file can draw; nothing if it cannot be read."""
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()

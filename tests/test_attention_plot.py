"""Pictures of attention: any text on the axes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from fastlstm.tasks import Translation
from fastlstm.tasks.translation import plot
from tests.support import Array


def translation(source_tokens: tuple[str, ...], tokens: tuple[str, ...]) -> Translation:
    shape = (len(tokens) + 1, len(source_tokens) + 1)
    attention: Array = np.random.default_rng(0).dirichlet(np.ones(shape[1]), shape[0])
    return Translation("", 0.0, 0.0, source_tokens, tokens, attention.astype(np.float32))


def labels(figure: Any) -> tuple[list[str], list[str]]:
    """Of columns and rows, once all has been drawn; a warning is an error here."""
    figure.savefig(io.BytesIO(), format="png")
    (axes,) = figure.axes
    found = [[label.get_text() for label in some()] for some in (
        axes.get_xticklabels, axes.get_yticklabels
    )]  # fmt: skip
    return found[0], found[1]


def test_columns_are_what_was_read_and_rows_what_was_said() -> None:
    one = translation(("zwei", " jun", "ge"), (" two", " young"))
    figure = one.plot()
    assert labels(figure) == (["zwei", "jun", "ge", "<end>"], ["two", "young", "<end>"])
    (image,) = figure.axes[0].get_images()
    assert one.attention is not None
    assert np.array_equal(image.get_array(), one.attention)


def test_any_text_can_be_drawn() -> None:
    tokens = ("$x_1$", "\\frac{", " ", "", "\n", "\t", "שלום", "é", "\ud800", "U" * 50, "%s {}")
    columns, rows = labels(translation(tokens, tokens).plot())
    assert columns == rows
    assert columns == [
        "$x_1$", "\\frac{", "·", "·", "\\n", "\\t", "שלום", "é", "\\ud800", "U" * 19 + "…", "%s {}",
        "<end>",
    ]  # fmt: skip


def test_a_character_that_no_font_has_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "_fonts", list)
    columns, _ = labels(translation(("日本", "a語"), ("b",)).plot())
    assert columns == ["U+65E5U+672C", "aU+8A9E", "<end>"]


def test_a_font_that_has_a_character_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the first one cannot be read."""
    entries = {font.name: font for font in font_manager.fontManager.ttflist}
    broken = font_manager.FontEntry(fname=str(Path(__file__)), name="no font")
    monkeypatch.setattr(plot, "_fonts", lambda: [broken, entries["DejaVu Sans"]])
    with matplotlib.rc_context({"font.family": ["cmr10"]}):
        families, missing = plot._families("aש日")
    assert families == ["cmr10", "DejaVu Sans"]
    assert missing == {"日"}


def test_what_has_no_attention_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"^attention: there is none; translate with return_att"):
        Translation("a", 0.0, 0.0).plot()

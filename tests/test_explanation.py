"""Explanations: what each word adds, all together known; and how they are shown."""

from __future__ import annotations

import numpy as np
import pytest

from fastlstm.tasks import TextClassifier
from fastlstm.tasks.text.explanation import integrated_gradients
from tests.reviews import reviews, small
from tests.support import Array


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return small().fit(*reviews())


def test_contributions_add_up_to_the_log_odds(fitted: TextClassifier) -> None:
    for text in ("The film is not good!", "awful and dull, but funny", "nothing known here", "x"):
        for label in (None, "pos", "neg"):
            explanation = fitted.explain(text, label)
            place = fitted.classes_.tolist().index(explanation.label)
            p = fitted.predict_proba([text])[0, place]
            assert explanation.probability == pytest.approx(p, rel=1e-5)
            assert explanation.log_odds == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
            total = sum(token.contribution for token in explanation.tokens)
            difference = explanation.log_odds - explanation.baseline
            assert total + explanation.error == pytest.approx(difference, abs=1e-6)
            assert abs(explanation.error) <= max(0.011 * abs(difference), 0.006)
            assert [token.text for token in explanation.tokens] == [
                text[token.start : token.stop] for token in explanation.tokens
            ]


def test_the_words_that_count_are_found() -> None:
    texts, labels = reviews()
    plain = [(text, label) for text, label in zip(texts, labels, strict=True) if "not" not in text]
    classifier = small().fit(*zip(*plain, strict=True))
    explanation = classifier.explain("the scene is awful", "neg")
    largest = max(explanation.tokens, key=lambda token: token.contribution)
    assert (largest.text, largest.start, largest.stop) == ("awful", 13, 18)


def test_what_speaks_for_one_of_two_classes_speaks_against_the_other(
    fitted: TextClassifier,
) -> None:
    text = "the scene is not awful"
    for_, against = (fitted.explain(text, label).tokens for label in ("pos", "neg"))
    for one, other in zip(for_, against, strict=True):
        assert one.contribution == pytest.approx(-other.contribution, abs=1e-4)


def test_unknown_words_add_nothing(fitted: TextClassifier) -> None:
    explanation = fitted.explain("unheard-of is bad")
    contributions = {token.text: token.contribution for token in explanation.tokens}
    assert contributions["unheard"] == contributions["of"] == 0  # nor does their spelling
    assert fitted.explain("").tokens == ()


def test_an_integral_along_a_line_is_exact_for_polynomials() -> None:
    rng = np.random.default_rng(0)
    baseline, vectors, weight = rng.standard_normal((3, 4, 2))

    def gradient(line: Array) -> tuple[Array, Array]:
        product = np.einsum("tbd,td->b", line, weight)
        return product**3, 3 * product[:, np.newaxis] ** 2 * weight[:, np.newaxis]

    # f = (Σ w·x)³ along the line: each step's share of the change of the sum.
    share = (weight * (vectors - baseline)).sum(axis=1)
    start, end = float((weight * baseline).sum()), float((weight * vectors).sum())
    expected = share * (end**3 - start**3) / (end - start)
    np.testing.assert_allclose(integrated_gradients(gradient, baseline, vectors), expected)


def test_explanations_are_shown(fitted: TextClassifier) -> None:
    explanation = fitted.explain("a <bad> film", "neg")
    assert str(explanation).startswith("neg: 0.")
    assert "bad" in str(explanation)
    page = explanation.to_html()
    assert "&lt;<span" in page
    assert ">bad</span>&gt;" in page
    assert explanation._repr_html_() == page
    painted = explanation.to_terminal()
    assert "\x1b[30;48;5;82mbad\x1b[0m" in painted


def test_a_label_to_explain_is_a_class(fitted: TextClassifier) -> None:
    with pytest.raises(ValueError, match="label: expected one of"):
        fitted.explain("a", "so-so")
    with pytest.raises(TypeError, match="text"):
        fitted.explain(3)

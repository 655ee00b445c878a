"""Who is no network: nearest neighbours, hidden Markov models, bags of n-grams.

Each takes a training part and a test part, chooses what it has to choose by the training part
alone, and returns the share of the test part that it gets right.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Labelled, Texts, folds

Array = NDArray[Any]

# --- sequences ------------------------------------------------------------------------------------


def standardised(training: Labelled, test: Labelled) -> tuple[Labelled, Labelled]:
    """Features less their mean over all training steps, over their deviation."""
    steps = np.concatenate(training.sequences)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    deviation[deviation == 0] = 1

    def scale(part: Labelled) -> Labelled:
        return Labelled([(x - mean) / deviation for x in part.sequences], part.labels)

    return scale(training), scale(test)


def nearest_neighbour(training: Labelled, test: Labelled) -> float:
    """The class of the nearest one by Euclid's distance.

    Sequences of different lengths are drawn out to the longest by linear interpolation.
    """
    from sklearn.neighbors import KNeighborsClassifier

    longest = max(map(len, training.sequences + test.sequences))
    rows = [
        np.stack([resampled(x, longest).ravel() for x in part.sequences])
        for part in (training, test)
    ]
    found = KNeighborsClassifier(1, algorithm="brute").fit(rows[0], training.labels)
    return float(found.score(rows[1], test.labels))


def resampled(sequence: Array, steps: int) -> Array:
    """(T, F) -> (steps, F), linearly."""
    if len(sequence) == steps:
        return sequence
    at = np.linspace(0, len(sequence) - 1, steps)
    return np.stack([np.interp(at, np.arange(len(sequence)), x) for x in sequence.T], axis=1)


def dtw_neighbour(training: Labelled, test: Labelled) -> float:
    """The class of the nearest one under dynamic time warping, all features together, no window.

    The squared distances of steps are summed along the path (DTW_D of Shokoohi-Yekta et al. 2017).
    """
    from dtaidistance import dtw_ndim

    everything = [np.ascontiguousarray(x) for x in training.sequences + test.sequences]
    count, right = len(training), 0
    for first in range(0, len(test), 64):
        rows = [everything[count + k] for k in range(first, min(first + 64, len(test)))]
        # Distances of each of `rows` to all that were trained on.
        table = dtw_ndim.distance_matrix_fast(
            [*rows, *everything[:count]],
            block=((0, len(rows)), (len(rows), len(rows) + count)),
            parallel=False,
        )
        nearest = table[: len(rows), len(rows) :].argmin(axis=1)
        right += int((training.labels[nearest] == test.labels[first : first + len(rows)]).sum())
    return right / len(test)


def hidden_markov(
    training: Labelled, test: Labelled, *, states: tuple[int, ...] = (2, 4, 6, 8)
) -> tuple[float, int]:
    """A Gaussian HMM of each class, diagonal covariances: the likeliest one wins.

    The number of states is the one that does best in two folds of the training part. Returns the
    share that is right, and that number.
    """
    training, test = standardised(training, test)
    fold = folds(training.labels, 2)

    def validated(count: int) -> float:
        scores = []
        for held_out in range(2):
            inside = training.take(np.flatnonzero(fold != held_out))
            outside = training.take(np.flatnonzero(fold == held_out))
            scores.append(_score_hmms(inside, outside, count))
        return float(np.mean(scores))

    best = max(states, key=validated) if len(states) > 1 else states[0]
    return _score_hmms(training, test, best), best


def _score_hmms(training: Labelled, test: Labelled, states: int) -> float:
    classes = np.unique(training.labels)
    likelihoods = np.full((len(test), len(classes)), -np.inf)
    for column, label in enumerate(classes):
        own = [training.sequences[k] for k in np.flatnonzero(training.labels == label)]
        model = _hmm(own, states)
        for row, sequence in enumerate(test.sequences):
            likelihoods[row, column] = model.score(sequence)
    return float((classes[likelihoods.argmax(axis=1)] == test.labels).mean())


def _hmm(sequences: list[Array], states: int) -> Any:
    """From left to right: begins in the first state, and goes on or stays.

    hmmlearn keeps transitions at zero that begin there. Each sequence is first cut into as many
    equal parts as there are states, whose means and variances are those of the states.
    """
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(
        states, covariance_type="diag", min_covar=1e-2, n_iter=20, init_params="", params="tmc"
    )
    model.startprob_ = np.eye(states)[0]
    stay = np.full(states, 0.7)
    stay[-1] = 1
    model.transmat_ = np.diag(stay) + np.diag(1 - stay[:-1], 1)
    parts = [[] for _ in range(states)]
    for sequence in sequences:
        place = np.arange(len(sequence)) * states // len(sequence)
        for state, part in enumerate(parts):
            part.append(sequence[place == state])
    everything = np.concatenate(sequences)
    rows = [np.concatenate(part) for part in parts]
    rows = [own if len(own) > 1 else everything for own in rows]
    model.means_ = np.stack([own.mean(axis=0) for own in rows])
    model.covars_ = np.stack([own.var(axis=0) + 1e-2 for own in rows])
    # It tells by warnings and by its log that EM went up and down by a rounding.
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.implementation = "scaling"  # six times as fast, but densities may underflow
            model.fit(everything, list(map(len, sequences)))
        except ValueError as error:
            if "underflow" not in str(error):
                raise
            model.implementation = "log"
            model.fit(everything, list(map(len, sequences)))
    model.implementation = "log"
    # A state that no sequence came from has no transitions: it stays.
    gone = np.flatnonzero(model.transmat_.sum(axis=1) == 0)
    model.transmat_[gone, gone] = 1
    return model


# --- texts ----------------------------------------------------------------------------------------


def bags_of_ngrams(training: Texts, test: Texts, *, longest: int = 2) -> dict[str, float]:
    """Logistic regression and naive Bayes over counts of words and of pairs of them.

    The strength of the penalty and of the smoothing do best in five folds of the training part.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.naive_bayes import MultinomialNB

    vectorizer = CountVectorizer(
        tokenizer=str.split, token_pattern=None, lowercase=True, ngram_range=(1, longest),
        binary=True,
    )  # fmt: skip
    rows = vectorizer.fit_transform(training.texts)
    test_rows = vectorizer.transform(test.texts)
    models = {
        "logistic regression": (LogisticRegression(max_iter=1000), {"C": [0.1, 0.3, 1, 3, 10]}),
        "naive Bayes": (MultinomialNB(), {"alpha": [0.1, 0.3, 1, 3]}),
    }
    parts = KFold(5, shuffle=True, random_state=0)
    found = {}
    for name, (model, grid) in models.items():
        search = GridSearchCV(model, grid, cv=parts).fit(rows, training.labels)
        found[name] = float(search.score(test_rows, test.labels))
    return found


# --- forecasts ------------------------------------------------------------------------------------


def strided(values: Array, first: int, last: int, past: int, ahead: int) -> tuple[Array, Array]:
    """The pasts (n, past, F) and the futures (n, ahead, F) of the same forecasts, as views."""
    both = np.lib.stride_tricks.sliding_window_view(
        values[first - past : last], past + ahead, axis=0
    ).swapaxes(1, 2)
    return both[:, :past], both[:, past:]

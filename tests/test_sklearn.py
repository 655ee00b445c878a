"""The numeric estimators within scikit-learn: its checks, pipelines, searches, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_classifiers_train,
    check_estimators_partial_fit_n_features,
    check_n_features_in,
    check_regressors_train,
    parametrize_with_checks,
)

from fastlstm.tasks import SequenceClassifier, SequenceRegressor, SequenceTagger
from tests.processes import run_python
from tests.support import Array, assert_same_bits

SETTINGS = {"batch_size": 16, "learning_rate": 0.03, "patience": None}
CLASSIFIER = SequenceClassifier(8, epochs=8, **SETTINGS)
REGRESSOR = SequenceRegressor(16, epochs=25, dropout=0.0, **SETTINGS)
# For what does not look at how well it learns.
QUICK = clone(REGRESSOR).set_params(epochs=2)


# --- scikit-learn's own checks --------------------------------------------------------------------

_COLUMNS = (
    "the columns of a 2-D X are the steps of sequences of one feature, which may be of any number"
)
_EXPECTED = {
    "check_n_features_in": f"n_features_in_ is 1 here: {_COLUMNS}",
    "check_n_features_in_after_fitting": f"{_COLUMNS}; and the message has to be scikit-learn's",
    "check_estimators_partial_fit_n_features": _COLUMNS,
    "check_sample_weight_equivalence_on_dense_data": (
        "batches are drawn at random, and other numbers of samples make other batches; that the "
        "loss itself is equivalent is tested in test_losses.py"
    ),
    "check_array_api_input": "computes on NumPy's arrays alone",
}
_EXPECTED_OF_CLASSIFIER = {
    "check_classifiers_train": f"its last lines want other columns refused: {_COLUMNS}",
}
_EXPECTED_OF_REGRESSOR = {
    "check_regressors_train": "two epochs are too few; it is run below, with more",
}


def expected(estimator: Any) -> dict[str, str]:
    own = _EXPECTED_OF_CLASSIFIER if is_classifier(estimator) else _EXPECTED_OF_REGRESSOR
    return _EXPECTED | own


@pytest.mark.filterwarnings("ignore")  # what the checks make scikit-learn warn of
@parametrize_with_checks([CLASSIFIER, QUICK], expected_failed_checks=expected)
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


class _OneStep:
    """A 2-D X as sequences of one step, whose features are the columns."""

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(_steps(X), y)  # type: ignore[misc]

    def partial_fit(self, X: Any, y: Any, **classes: Any) -> Any:
        return super().partial_fit(_steps(X), y, **classes)  # type: ignore[misc]

    def predict(self, X: Any, **more: Any) -> Any:
        return super().predict(_steps(X), **more)  # type: ignore[misc]


class OneStepClassifier(_OneStep, SequenceClassifier):
    def predict_proba(self, X: Any, **more: Any) -> Any:
        return super().predict_proba(_steps(X), **more)


class OneStepRegressor(_OneStep, SequenceRegressor):
    pass


def _steps(X: Any) -> Array:
    return np.asarray(X)[:, np.newaxis]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "check"),
    [
        (OneStepClassifier, check_n_features_in),
        (OneStepClassifier, check_estimators_partial_fit_n_features),
        (OneStepClassifier, check_classifiers_train),
        (OneStepRegressor, check_n_features_in),
        (OneStepRegressor, check_estimators_partial_fit_n_features),
        (OneStepRegressor, check_regressors_train),
    ],
)
def test_what_the_checks_want_of_columns_holds_for_features(make: Any, check: Any) -> None:
    check(make.__name__, make(8, epochs=8, **SETTINGS))


@pytest.mark.filterwarnings("ignore")
def test_a_regressor_of_univariate_sequences_learns_enough_for_the_check() -> None:
    check_regressors_train("SequenceRegressor", REGRESSOR)


def test_estimators_say_what_they_are() -> None:
    assert is_classifier(CLASSIFIER)
    assert is_regressor(REGRESSOR)
    for estimator in (CLASSIFIER, REGRESSOR, SequenceTagger()):
        tags = get_tags(estimator)
        assert tags.input_tags.three_d_array
        assert not tags.input_tags.sparse
        assert not tags.input_tags.allow_nan
        assert tags.target_tags.required
    assert get_tags(REGRESSOR).target_tags.multi_output
    assert not get_tags(CLASSIFIER).target_tags.multi_output


# --- pipelines and searches -----------------------------------------------------------------------


def data(count: int = 90) -> tuple[list[Array], list[str]]:
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((rng.integers(3, 8), 2)) for _ in range(count)]
    return X, ["up" if x[0, 0] > 0 else "down" for x in X]


class Doubled(TransformerMixin, BaseEstimator):
    """Each sequence with its changes from step to step as further features."""

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: ARG002
        return self

    def transform(self, X: Any) -> Any:
        return [np.hstack([x, np.diff(x, axis=0, prepend=x[:1])]) for x in X]

    def __sklearn_is_fitted__(self) -> bool:
        return True


def test_a_pipeline_of_lists() -> None:
    X, y = data()
    pipeline = make_pipeline(Doubled(), clone(CLASSIFIER).set_params(random_state=0)).fit(X, y)
    assert pipeline[-1].n_features_in_ == 4
    assert pipeline.score(X, y) > 0.8
    assert pipeline.predict_proba(X).shape == (len(X), 2)
    again = clone(pipeline).fit(X, y)
    assert_same_bits(again.predict_proba(X), pipeline.predict_proba(X))


def test_fit_parameters_go_through_a_pipeline() -> None:
    X, y = data()
    weights = np.arange(len(X)) % 2
    pipeline = Pipeline([("lstm", clone(CLASSIFIER).set_params(random_state=0))])
    pipeline.fit(X, y, lstm__sample_weight=weights)
    alone = clone(CLASSIFIER).set_params(random_state=0).fit(X, y, sample_weight=weights)
    assert_same_bits(pipeline.predict_proba(X), alone.predict_proba(X))


def test_cross_validation_of_lists() -> None:
    X, y = data()
    classifier = clone(CLASSIFIER).set_params(random_state=0)
    scores = cross_val_score(classifier, X, y, cv=3)
    assert scores.mean() > 0.75
    proba = cross_val_predict(classifier, X, y, cv=3, method="predict_proba")
    assert np.mean(np.array(["down", "up"])[proba.argmax(axis=1)] == y) == pytest.approx(
        scores.mean()
    )
    targets = [[x[0, 0], x[-1, 1]] for x in X]
    regressor = clone(REGRESSOR).set_params(random_state=0, pooling="last", epochs=30)
    assert cross_val_score(regressor, X, np.array(targets), cv=2).mean() > 0.5
    tagger = SequenceTagger(8, epochs=8, random_state=0, **SETTINGS)
    labels = [np.where(x[:, 0] > 0, "up", "down") for x in X]
    assert cross_val_score(tagger, X, labels, cv=3).mean() > 0.85


def test_a_search_finds_what_learns_better() -> None:
    X, y = data()
    search = GridSearchCV(
        clone(CLASSIFIER).set_params(random_state=0),
        {"learning_rate": [1e-6, 0.03], "cell": ["rnn"]},
        cv=2,
        scoring="neg_log_loss",
    ).fit(X, y)
    assert search.best_params_ == {"learning_rate": 0.03, "cell": "rnn"}
    assert search.score(X, y) < 0
    assert search.predict(X).shape == (len(X),)


# --- threads --------------------------------------------------------------------------------------

# loky gives each of two workers its share of the cores by OMP_NUM_THREADS, which we read at import.
WORKERS = """
import os
from collections import Counter
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info
import fastlstm
from fastlstm.tasks import SequenceClassifier

class Spy(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        from fastlstm.tasks import SequenceClassifier
        pools = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
        with open(os.environ["SPIED"], "a") as file:
            file.write(f"{os.getpid()} {fastlstm.get_num_threads()} {max(pools)}\\n")
        return self
    def transform(self, X):
        return X

rng = np.random.default_rng(0)
X = [rng.standard_normal((4, 2)) for _ in range(60)]
y = [x[0, 0] > 0 for x in X]
lstm = SequenceClassifier(4, epochs=2, random_state=0)
search = GridSearchCV(
    make_pipeline(Spy(), lstm), {"sequenceclassifier__hidden_size": [3, 4]}, cv=3, n_jobs=2,
    refit=False,
)
scores = search.fit(X, y).cv_results_["mean_test_score"]
alone = GridSearchCV(lstm, {"hidden_size": [3, 4]}, cv=3, refit=False).fit(X, y)
print(np.array_equal(scores, alone.cv_results_["mean_test_score"]))
print(os.getpid())
"""


def test_two_processes_of_a_search_have_one_core_each_and_the_same_results(tmp_path: Any) -> None:
    program = tmp_path / "program.py"  # a file, for the workers read the class from it
    program.write_text(WORKERS)
    spied = tmp_path / "spied"
    environment = {"SPIED": str(spied), "LOKY_MAX_CPU_COUNT": "2"}
    same, parent = run_python(str(program), environment=environment, timeout=300).split()
    assert same == "True"
    lines = [line.split() for line in spied.read_text().splitlines()]
    assert len(lines) == 6
    assert parent not in {process for process, _, _ in lines}
    assert {(ours, blas) for _, ours, blas in lines} == {("1", "1")}

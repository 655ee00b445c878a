"""What classifiers share: their labels as numbers, weights of classes, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm._validate import Array, check_number
from fastlstm.tasks._sklearn import check_classification_targets, column_or_1d


def check_labels(y: Any, count: int) -> Array:
    """Return labels as an array (count,).

    Raises
    ------
    ValueError
        If there are not `count`, or they are no classes: missing, or numbers of a continuum.
    """
    labels: Array = column_or_1d(y, warn=True)
    if len(labels) != count:
        raise ValueError(f"y: expected {count} classes, as X has, got {len(labels)}")
    if labels.dtype == object and not all(isinstance(label, str) for label in labels):
        kinds = sorted({type(label).__name__ for label in labels})
        if len(kinds) > 1 or "float" in kinds or "NoneType" in kinds:
            raise ValueError(f"y: expected classes of one kind, got {', '.join(kinds)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y: expected classes, got NaN or infinity among them")
    check_classification_targets(labels)
    return labels


def check_several(classes: Array) -> Array:
    """Return classes if they are two at least, else raise ValueError."""
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got 1 class: {classes[0]!r}")
    return classes


def class_weights(class_weight: Any, classes: Array, targets: Array) -> Array:
    """What each class counts, (n_classes,) of float32.

    Parameters
    ----------
    class_weight : None, "balanced" or mapping
        All 1; n / (n_classes · n of the class), as scikit-learn has it; or by class, 1 where a
        class is not in it.
    classes : ndarray (n_classes,)
    targets : ndarray of integers (n,)
        Numbers of classes.

    Raises
    ------
    TypeError, ValueError
        If it is nothing of this, or names what is no class.
    """
    weights = np.ones(len(classes), np.float32)
    if class_weight is None:
        return weights
    if class_weight == "balanced":
        counts = np.bincount(targets, minlength=len(classes))
        balanced = len(targets) / (len(classes) * np.maximum(counts, 1))
        return balanced.astype(np.float32)
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"class_weight: expected None, 'balanced' or a dict, got {class_weight!r:.80}"
        )
    names = classes.tolist()
    for label, weight in class_weight.items():
        if label not in names:
            raise ValueError(f"class_weight: {label!r:.80} is none of the classes")
        weights[names.index(label)] = check_number(f"class_weight[{label!r}]", weight, least=0)
    if not weights[np.unique(targets)].any():
        raise ValueError("class_weight: expected a weight above 0, got none")
    return weights


def softmax(logits: Array) -> Array:
    """Probabilities (B, V) of float64."""
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max(axis=1, keepdims=True))
    probabilities: Array = weights / weights.sum(axis=1, keepdims=True)
    return probabilities

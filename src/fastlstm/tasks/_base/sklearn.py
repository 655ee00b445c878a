"""What is used of scikit-learn, which is an extra: who lacks it reads how to get it."""

from __future__ import annotations

from fastlstm._extras import import_extra

import_extra("sklearn", extra="tasks", purpose="fastlstm's estimators")

from sklearn.base import (  # noqa: E402
    BaseEstimator as BaseEstimator,
)
from sklearn.base import (  # noqa: E402
    ClassifierMixin as ClassifierMixin,
)
from sklearn.base import (  # noqa: E402
    RegressorMixin as RegressorMixin,
)
from sklearn.exceptions import NotFittedError as NotFittedError  # noqa: E402
from sklearn.metrics import accuracy_score as accuracy_score  # noqa: E402
from sklearn.metrics import r2_score as r2_score  # noqa: E402
from sklearn.utils import check_random_state as check_random_state  # noqa: E402
from sklearn.utils.multiclass import (  # noqa: E402
    check_classification_targets as check_classification_targets,
)
from sklearn.utils.validation import column_or_1d as column_or_1d  # noqa: E402

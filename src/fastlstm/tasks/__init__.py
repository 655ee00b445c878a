"""What a person wants done with an LSTM: each task is an estimator, its data, and its file.

The estimators have scikit-learn's interface, and need it (``pip install 'fastlstm[tasks]'``), so
each is imported when it is first asked for.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from fastlstm.tasks._base.batches import StreamBatches as StreamBatches
from fastlstm.tasks.corpus import CorpusError as CorpusError

if TYPE_CHECKING:
    from fastlstm.tasks.forecasting import Forecaster as Forecaster
    from fastlstm.tasks.language_model import LanguageModel as LanguageModel
    from fastlstm.tasks.recognition import SequenceRecognizer as SequenceRecognizer
    from fastlstm.tasks.sequences import SequenceClassifier as SequenceClassifier
    from fastlstm.tasks.sequences import SequenceRegressor as SequenceRegressor
    from fastlstm.tasks.sequences import SequenceTagger as SequenceTagger
    from fastlstm.tasks.text.classifier import TextClassifier as TextClassifier
    from fastlstm.tasks.translation import Translation as Translation
    from fastlstm.tasks.translation import Translator as Translator

_HOMES = {
    "Forecaster": "forecasting",
    "LanguageModel": "language_model",
    "SequenceClassifier": "sequences",
    "SequenceRecognizer": "recognition",
    "SequenceRegressor": "sequences",
    "SequenceTagger": "sequences",
    "TextClassifier": "text.classifier",
    "Translation": "translation",
    "Translator": "translation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastlstm.tasks' has no attribute {name!r}")
    value: object = getattr(_import_module(f"fastlstm.tasks.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

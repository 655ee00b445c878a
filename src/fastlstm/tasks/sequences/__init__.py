"""Numeric sequences: a class or numbers for each, or a class for each step."""

from fastlstm.tasks.sequences.tagging import SequenceTagger as SequenceTagger
from fastlstm.tasks.sequences.whole import SequenceClassifier as SequenceClassifier
from fastlstm.tasks.sequences.whole import SequenceRegressor as SequenceRegressor

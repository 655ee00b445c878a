"""Language models: probabilities of texts, and more text."""

from fastlstm.tasks.language_model.model import LanguageModel as LanguageModel
from fastlstm.tasks.language_model.writing import Completion as Completion

"""What a person wants done with an LSTM: each task is a model, its data, and its file."""

from fastlstm.tasks.corpus import CorpusError as CorpusError
from fastlstm.tasks.language_model import CharacterModel as CharacterModel
from fastlstm.tasks.language_model import StreamBatches as StreamBatches

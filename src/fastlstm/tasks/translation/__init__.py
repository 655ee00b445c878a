"""Translation: an encoder and a decoder with attention, and the search for the best sentence."""

from fastlstm.tasks.translation.result import Translation as Translation
from fastlstm.tasks.translation.translator import Translator as Translator

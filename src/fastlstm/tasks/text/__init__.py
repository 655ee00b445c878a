"""Texts: their tokens, a class for each, and what made a classifier say so.

TextClassifier is at `fastlstm.tasks`; other tasks need the tokens alone.
"""

from fastlstm.tasks.text.explanation import Explanation as Explanation
from fastlstm.tasks.text.explanation import Token as Token
from fastlstm.tasks.text.tokenizer import Tokenizer as Tokenizer

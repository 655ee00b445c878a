"""fastlstm: LSTM networks on the CPU, from NumPy."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

# What the core would import, but from deep within: near the end of a piece of the interpreter's
# stack of frames each call maps and unmaps memory, and this import makes very many.
import scipy.linalg.cython_blas as _cython_blas  # noqa: F401

from fastlstm import _openmp as _openmp  # first: it loads the compiled core
from fastlstm._version import __version__ as __version__
from fastlstm.lstm import LSTM as LSTM
from fastlstm.parameters import Parameters as Parameters
from fastlstm.stream import Stream as Stream
from fastlstm.threads import get_num_threads as get_num_threads
from fastlstm.threads import set_num_threads as set_num_threads

if TYPE_CHECKING:
    from fastlstm import init as init
    from fastlstm._config import show_config as show_config
    from fastlstm.attention import Attention as Attention
    from fastlstm.cell import LSTMCell as LSTMCell
    from fastlstm.ctc import ctc_loss as ctc_loss
    from fastlstm.decoding import ctc_beam_search as ctc_beam_search
    from fastlstm.decoding import ctc_greedy as ctc_greedy
    from fastlstm.layers import Dropout as Dropout
    from fastlstm.layers import Embedding as Embedding
    from fastlstm.layers import Linear as Linear
    from fastlstm.losses import mean_squared_error as mean_squared_error
    from fastlstm.losses import quantile_loss as quantile_loss
    from fastlstm.losses import softmax_cross_entropy as softmax_cross_entropy
    from fastlstm.optim import SGD as SGD
    from fastlstm.optim import Adam as Adam
    from fastlstm.optim import AdamW as AdamW
    from fastlstm.optim import clip_grad_norm as clip_grad_norm
    from fastlstm.pooling import Pooling as Pooling
    from fastlstm.rnn import RNN as RNN
    from fastlstm.saving import load as load
    from fastlstm.saving import save as save
    from fastlstm.training import Trainer as Trainer

# An import takes what an LSTM needs. Each of these names, and each public module, is imported when
# it is first asked for.
_HOMES = {
    "show_config": "_config",
    "Attention": "attention",
    "LSTMCell": "cell",
    "ctc_loss": "ctc",
    "ctc_beam_search": "decoding",
    "ctc_greedy": "decoding",
    "Dropout": "layers",
    "Embedding": "layers",
    "Linear": "layers",
    "mean_squared_error": "losses",
    "quantile_loss": "losses",
    "softmax_cross_entropy": "losses",
    "SGD": "optim",
    "Adam": "optim",
    "AdamW": "optim",
    "clip_grad_norm": "optim",
    "Pooling": "pooling",
    "RNN": "rnn",
    "load": "saving",
    "save": "saving",
    "Trainer": "training",
}
_MODULES = (
    "attention", "cell", "checkpoints", "ctc", "decoding", "init", "layers", "losses", "optim",
    "pooling", "reference", "rnn", "saving", "schedules", "storage", "tasks", "training",
)  # fmt: skip
__all__ = [  # written out for type checkers
    "LSTM", "RNN", "SGD", "Adam", "AdamW", "Attention", "Dropout", "Embedding", "LSTMCell",
    "Linear", "Parameters", "Pooling", "Stream", "Trainer", "__version__", "clip_grad_norm",
    "ctc_beam_search", "ctc_greedy", "ctc_loss", "get_num_threads", "load", "mean_squared_error",
    "quantile_loss", "save", "set_num_threads", "show_config", "softmax_cross_entropy",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value: object = getattr(_import_module(f"fastlstm.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = _import_module(f"fastlstm.{name}")
    else:
        raise AttributeError(f"module 'fastlstm' has no attribute {name!r}")
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})

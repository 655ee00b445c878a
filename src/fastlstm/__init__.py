"""fastlstm: LSTM networks on the CPU, from NumPy."""

from fastlstm import _openmp as _openmp  # first: it loads the compiled core
from fastlstm import init as init
from fastlstm._config import show_config as show_config
from fastlstm._version import __version__ as __version__
from fastlstm.cell import LSTMCell as LSTMCell
from fastlstm.layers import Dropout as Dropout
from fastlstm.layers import Embedding as Embedding
from fastlstm.layers import Linear as Linear
from fastlstm.losses import mean_squared_error as mean_squared_error
from fastlstm.losses import softmax_cross_entropy as softmax_cross_entropy
from fastlstm.lstm import LSTM as LSTM
from fastlstm.optim import SGD as SGD
from fastlstm.optim import Adam as Adam
from fastlstm.optim import AdamW as AdamW
from fastlstm.optim import clip_grad_norm as clip_grad_norm
from fastlstm.parameters import Parameters as Parameters
from fastlstm.rnn import RNN as RNN
from fastlstm.saving import load as load
from fastlstm.saving import save as save
from fastlstm.stream import Stream as Stream
from fastlstm.threads import get_num_threads as get_num_threads
from fastlstm.threads import set_num_threads as set_num_threads
from fastlstm.training import Trainer as Trainer

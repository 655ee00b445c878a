"""fastlstm: LSTM networks on the CPU, from NumPy."""

from fastlstm._config import show_config as show_config
from fastlstm._version import __version__ as __version__
from fastlstm.lstm import LSTM as LSTM
from fastlstm.parameters import Parameters as Parameters
from fastlstm.threads import get_num_threads as get_num_threads
from fastlstm.threads import set_num_threads as set_num_threads

"""Keras 3: weights and options of its LSTM layers, in and out, as objects and as files.

``from_keras`` and ``to_keras`` take and make layer objects, on whatever backend Keras runs.
``load``, ``save`` and ``save_weights`` read and write Keras' files by h5py alone: neither Keras
nor one of its backends is needed, and no code from a file runs.

Both frameworks order the gates i, f, g, o (Keras says c for g), so for each direction::

    weight_ih = kernel.T      weight_hh = recurrent_kernel.T      bias_ih = bias      bias_hh = 0
"""

from fastlstm.interop.keras._files import load
from fastlstm.interop.keras._layers import from_keras, to_keras
from fastlstm.interop.keras._writing import save, save_weights

__all__ = ["from_keras", "load", "save", "save_weights", "to_keras"]

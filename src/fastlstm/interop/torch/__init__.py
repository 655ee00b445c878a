"""PyTorch: weights in and out, files of weights, and an LSTM of ours for torch models.

``from_torch`` and ``from_file`` need no torch where weights come as NumPy arrays or as safetensors;
what else is here needs the extra: ``pip install 'fastlstm[torch]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlstm._extras import import_extra
from fastlstm.interop.torch.files import from_file as from_file
from fastlstm.interop.torch.files import read_state_dict as read_state_dict
from fastlstm.interop.torch.weights import EXTRA
from fastlstm.interop.torch.weights import from_torch as from_torch
from fastlstm.interop.torch.weights import to_torch as to_torch

if TYPE_CHECKING:
    from fastlstm.interop.torch.module import LSTM as LSTM

__all__ = ["LSTM", "from_file", "from_torch", "read_state_dict", "to_torch"]


def __getattr__(name: str) -> Any:
    # A subclass of torch's: made once it is asked for, so that the rest does without torch.
    if name == "LSTM":
        import_extra("torch", extra=EXTRA, purpose="fastlstm.interop.torch.LSTM")
        from fastlstm.interop.torch.module import LSTM

        return LSTM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

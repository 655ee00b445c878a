"""PyTorch: weights in and out, as modules, state dicts and files.

``from_torch`` and ``from_file`` need no torch where weights come as NumPy arrays or as safetensors;
what else is here needs the extra: ``pip install 'fastlstm[torch]'``.
"""

from fastlstm.interop.torch.files import from_file as from_file
from fastlstm.interop.torch.files import read_state_dict as read_state_dict
from fastlstm.interop.torch.weights import from_torch as from_torch
from fastlstm.interop.torch.weights import to_torch as to_torch

"""ONNX: models read and run, and layers written as models, by way of the package onnx.

>>> from fastlstm.interop.onnx import load, read_lstms, to_onnx, save
"""

from fastlstm.interop.onnx._export import save as save
from fastlstm.interop.onnx._export import to_onnx as to_onnx
from fastlstm.interop.onnx._graph import Input as Input
from fastlstm.interop.onnx._model import Model as Model
from fastlstm.interop.onnx._model import load as load
from fastlstm.interop.onnx._model import read_lstms as read_lstms

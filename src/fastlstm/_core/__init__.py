"""The compiled core: the time loop, and the products around it, over csrc/ and SciPy's BLAS.

Each module has one reason to exist: blas calls SciPy's BLAS, kernels the C code, time_loop runs a
layer in one direction, recompute makes its gates anew, stream steps a stack of layers, dense serves
what stands around the recurrence, optimise changes the weights. Everything above this package takes
it from here, but for ctc and beam, which few need: ctc.py and decoding.py import them by
themselves.
"""

from fastlstm._core.blas import INTEGER_BITS as BLAS_INTEGER_BITS
from fastlstm._core.dense import (
    cross_entropy,
    matmul,
    matmul_batch,
    matmul_panels,
    scatter_add_rows,
    softmax_batch,
    sum_rows,
)
from fastlstm._core.kernels import (
    COMPILER,
    DEBUG,
    FLAGS,
    ISA,
    OPENMP,
    VECTOR,
    pack,
    pack_gates,
    sigmoid,
    tanh,
)
from fastlstm._core.optimise import adam, sgd, sum_of_squares
from fastlstm._core.recompute import cells
from fastlstm._core.stream import Stepper
from fastlstm._core.time_loop import backward, forward, previous_h
from fastlstm._core.variants import (
    SCRATCH,
    Cell,
    normalize,
    normalize_back,
    variant_backward,
    variant_forward,
)

__all__ = [
    "BLAS_INTEGER_BITS",
    "COMPILER",
    "DEBUG",
    "FLAGS",
    "ISA",
    "OPENMP",
    "SCRATCH",
    "VECTOR",
    "Cell",
    "Stepper",
    "adam",
    "backward",
    "cells",
    "cross_entropy",
    "forward",
    "matmul",
    "matmul_batch",
    "matmul_panels",
    "normalize",
    "normalize_back",
    "pack",
    "pack_gates",
    "previous_h",
    "scatter_add_rows",
    "sgd",
    "sigmoid",
    "softmax_batch",
    "sum_of_squares",
    "sum_rows",
    "tanh",
    "variant_backward",
    "variant_forward",
]

"""What a mutation is, and the files that there are mutations of."""

from __future__ import annotations

from dataclasses import dataclass

BLAS_ONLY = "generic"  # the instruction set that BLAS serves

KERNELS = "csrc/kernels.c"
PANELS = "csrc/products.h"
STEPS = "csrc/steps.h"
FLUSH = "csrc/flush.h"
CELL = "csrc/variants.h"
CORE = "src/fastlstm/_core/time_loop.pyx"
STEP = "src/fastlstm/_core/step.pxd"
DENSE = "src/fastlstm/_core/dense.pyx"
BLAS = "src/fastlstm/_core/blas.pyx"
LOOP = "src/fastlstm/_core/variants.pyx"
STEPPER = "src/fastlstm/_core/stream.pyx"
STREAM = "src/fastlstm/stream.py"
CELLS = "src/fastlstm/_core/recompute.pyx"
STACK = "src/fastlstm/_stack.py"
GRADIENTS = "src/fastlstm/_gradients.py"
RECOMPUTE = "src/fastlstm/_recompute.py"
RUNS = "src/fastlstm/_variant_runs.py"
DROPOUT = "src/fastlstm/_dropout.py"
WEIGHTS = "src/fastlstm/_weights.py"
PRODUCTS = "src/fastlstm/_products.py"
LAYER = "src/fastlstm/lstm.py"
SEQUENCES = "src/fastlstm/_sequences.py"
PACKING = "src/fastlstm/packing.py"
TAPE = "src/fastlstm/tape.py"
PARAMETERS = "src/fastlstm/parameters.py"
RANDOM = "src/fastlstm/_random.py"
CTC = "src/fastlstm/_core/ctc.pyx"
BEAM = "src/fastlstm/_core/beam.pyx"
OPTIMISERS = "src/fastlstm/_core/optimise.pyx"


@dataclass(frozen=True)
class Mutation:
    """`old`, which occurs once in `file`, becomes `new`.

    Tested on an instruction set if one is named, and by tests of its own if these are.
    """

    name: str
    file: str
    old: str
    new: str
    isa: str = ""
    tests: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        return not self.file.endswith(".py")

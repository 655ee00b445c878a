"""Breaks the core in many ways, one at a time, and demands that each turns a test red.

    python -m tests.mutations            # all of them: some twenty minutes
    python -m tests.mutations gates df   # those with one of these words in their names

Needs a processor with packed kernels; mutations of the BLAS path are tested on "generic".
Works on a copy of the tree in a temporary folder. Exits with 1 if a mutation survives, if its
pattern does not occur exactly once any more, or if the tests are red without any mutation,
before the first or after the last.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ["src", "csrc", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
# Fast ones first: most mutations fall in the stored witnesses.
TESTS = [
    "tests/test_tape.py",
    "tests/test_parameters.py",
    "tests/test_packing.py",
    "tests/test_sequences.py",
    "tests/test_lstm_oracle.py",
    "tests/test_lstm.py",
    "tests/test_lstm_masks.py",
    "tests/test_lstm_reverse.py",
    "tests/test_weights.py",
    "tests/test_blas.py",
    "tests/test_core.py",
    "tests/test_flush.py",
    "tests/test_stack.py",
    "tests/test_gradients.py",
    "tests/test_dropout.py",
    "tests/test_recompute.py",
    "tests/test_stream.py",
    "tests/test_stream_use.py",
    "tests/test_lstm_laws.py",
    "tests/test_promises.py",
    "tests/test_lstm_gradients.py",
]
# Files that have tests of their own, and no part in the others.
TESTS_OF = {"src/fastlstm/_core/ctc.pyx": ["tests/test_ctc.py"]}
TIMEOUT = 300  # seconds for the tests of one mutation: one that hangs is seen, too


@dataclass(frozen=True)
class Mutation:
    """`old`, which occurs once in `file`, becomes `new`; tested on an instruction set if named."""

    name: str
    file: str
    old: str
    new: str
    isa: str = ""

    @property
    def compiled(self) -> bool:
        return not self.file.endswith(".py")


BLAS_ONLY = "generic"  # the instruction set that BLAS serves

KERNELS = "csrc/kernels.c"
PANELS = "csrc/products.h"
STEPS = "csrc/steps.h"
FLUSH = "csrc/flush.h"
CORE = "src/fastlstm/_core/time_loop.pyx"
STEP = "src/fastlstm/_core/step.pxd"
DENSE = "src/fastlstm/_core/dense.pyx"
BLAS = "src/fastlstm/_core/blas.pyx"
STEPPER = "src/fastlstm/_core/stream.pyx"
STREAM = "src/fastlstm/stream.py"
CELLS = "src/fastlstm/_core/recompute.pyx"
STACK = "src/fastlstm/_stack.py"
GRADIENTS = "src/fastlstm/_gradients.py"
RECOMPUTE = "src/fastlstm/_recompute.py"
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

MUTATIONS = [
    # --- gates -----------------------------------------------------------------------------------
    Mutation(
        "gates i and f swapped",
        KERNELS,
        "vec i = v_sigmoid(pre[0]), f = v_sigmoid(pre[1]);",
        "vec f = v_sigmoid(pre[0]), i = v_sigmoid(pre[1]);",
    ),
    Mutation(
        "gates g and o swapped",
        KERNELS,
        "vec g = v_tanh(pre[2]), o = v_sigmoid(pre[3]);",
        "vec o = v_sigmoid(pre[2]), g = v_tanh(pre[3]);",
    ),
    Mutation(
        "sign of df flipped",
        KERNELS,
        "v_mul(df, v_mul(f, v_sub(one, f)))",
        "v_mul(df, v_mul(f, v_sub(f, one)))",
    ),
    Mutation(
        "article: dc carried by i instead of f",
        KERNELS,
        "v_store_n(d_c, v_mul(dc, f), n);",
        "v_store_n(d_c, v_mul(dc, i), n);",
    ),
    Mutation(
        "article: 1 - tanh² of the candidate, a tanh already",
        KERNELS,
        "v_mul(dg, v_mul(v_sub(one, g), v_add(one, g)))",
        "v_mul(dg, v_mul(v_sub(one, v_tanh(g)), v_add(one, v_tanh(g))))",
    ),
    Mutation(
        "article: σ' of o, a sigmoid already",
        KERNELS,
        "v_mul(d_o, v_mul(o, v_sub(one, o)))",
        "v_mul(d_o, v_mul(v_sigmoid(o), v_sub(one, v_sigmoid(o))))",
    ),
    Mutation(
        "article: the term through h of the step before left out",
        STEP,
        "rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, False)",
        "rows, hidden, 0, hidden, 4 * hidden, hidden, False)",
        BLAS_ONLY,
    ),
    Mutation(
        "only gate i in the term through h of the step before",
        STEPS,
        "inner = d_next != NULL ? GATES * hidden : 0;",
        "inner = d_next != NULL ? hidden : 0;",
    ),
    Mutation(
        "dc from later steps overwritten",
        KERNELS,
        "vec dc = v_add(v_load_n(d_c, n), d_tanh);",
        "vec dc = d_tanh;",
    ),
    Mutation(
        "d_output overwrites dh in a vector's tail",
        KERNELS,
        "dh = v_add(dh, v_load_part(d_output + k, n));",
        "dh = v_load_part(d_output + k, n);",
    ),
    # --- the time loop ---------------------------------------------------------------------------
    Mutation(
        "last step of a chunk dropped",
        CORE,
        "for _step in range(chunk_last - chunk_first):",
        "for _step in range(chunk_last - chunk_first - 1):",
    ),
    Mutation(
        "last step of backward dropped",
        CORE,
        "for _step in range(steps):",
        "for _step in range(steps - 1):",
    ),
    Mutation(
        "product with the initial state always skipped",
        CORE,
        "NULL if zero_state else h_first + entered * hidden, c_first",
        "<real*>NULL, c_first",
    ),
    Mutation(
        "product with h of the step before always skipped",
        CORE,
        "h_rows + row_prev * ld_h, all_c",
        "<real*>NULL, all_c",
    ),
    Mutation(
        "gates of entering sequences kept in the rows of others",
        CORE,
        "kept = all_gates + (row + entered) * 4 * hidden",
        "kept = all_gates + row * 4 * hidden",
    ),
    Mutation(
        "gates kept in the rows of the first chunk",
        CORE,
        "kept = all_gates + row * 4 * hidden",
        "kept = all_gates + (row - offsets[chunk_first]) * 4 * hidden",
    ),
    Mutation(
        "a chunk's pre-activations looked for where the batch begins",
        CORE,
        "return 0 if keep and not packed else offsets[chunk_first]",
        "return 0 if keep else offsets[chunk_first]",
    ),
    Mutation(
        "gates kept in the rows of the first chunk, BLAS",
        CORE,
        "return 0 if keep and not packed else offsets[chunk_first]",
        "return offsets[chunk_first]",
        BLAS_ONLY,
    ),
    Mutation(
        "one sequence's final state not handed over",
        CORE,
        "for b in range(staying, rows):",
        "for b in range(staying + 1, rows):",
    ),
    Mutation(
        "c_n takes h",
        CORE,
        "memcpy(c_n + b * hidden + unit, c + b * hidden + unit, width)",
        "memcpy(c_n + b * hidden + unit, h + b * ld_h + unit, width)",
    ),
    Mutation(
        "last row of a share not projected",
        CORE,
        "end = row + rows * (part.member + 1) // part.team",
        "end = row + rows * (part.member + 1) // part.team - 1",
    ),
    Mutation(
        "bias set in the first row of a share alone",
        STEP,
        "memcpy(pre + row * width, bias, width * sizeof(real))",
        "memcpy(pre, bias, width * sizeof(real))",
        BLAS_ONLY,
    ),
    Mutation(
        "bias left out",
        STEP,
        "pre + column, width, bias + column, 0, x, inner,",
        "pre + column, width, <real*>NULL, 0, x, inner,",
    ),
    Mutation(
        "c_t for c of the step before",
        CORE,
        "c_prev = &c[row_prev + begin, 0]",
        "c_prev = &c[row + begin, 0]",
    ),
    Mutation(
        "another sequence's c_0 in backward",
        CORE,
        "c_prev = &c_0[first + begin, 0]",
        "c_prev = &c_0[first, 0]",
    ),
    Mutation(
        "W_hh transposed in backward",
        STEP,
        """gemm(d_h, d_gates, weight_hh, False, False,
             rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, False)""",
        """gemm(d_h, d_gates, weight_hh, False, True,
             rows, hidden, 4 * hidden, hidden, 4 * hidden, 4 * hidden, False)""",
        BLAS_ONLY,
    ),
    Mutation(
        "dh added to instead of overwritten",
        STEP,
        "rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, False)",
        "rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, True)",
        BLAS_ONLY,
    ),
    Mutation(
        "dh_0 of all begins with the first one's dh",
        STEP,
        "multiply_packed(d_h + unit, hidden, <real*>NULL, 0, d_gates,",
        "multiply_packed(d_h + unit, hidden, d_h + unit, 0, d_gates,",
    ),
    Mutation(
        "h_t for h of the step before in dW_hh",
        CORE,
        "&h[offsets[t - step] + b, 0], width)",
        "&h[offsets[t] + b, 0], width)",
    ),
    Mutation(
        "another sequence's h_0 in dW_hh, where lengths differ",
        CORE,
        "memcpy(&out[row + b, 0], &h_0[b, 0], width)",
        "memcpy(&out[row + b, 0], &h_0[0, 0], width)",
    ),
    Mutation(
        "a thread's block loses its last sequence",
        CORE,
        "part.last = blocks[n_blocks * (member + 1) // team]",
        "part.last = blocks[n_blocks * (member + 1) // team] - 1",
    ),
    Mutation(
        "bias gradient overwritten row by row",
        DENSE,
        "partial[column] += a[row, column]",
        "partial[column] = a[row, column]",
    ),
    Mutation(
        "product of one row overwrites instead of adding",
        BLAS,
        """    cdef char op = b"T" if transpose_b else b"N"
    cdef real one = 1
    cdef real beta = 1 if accumulate else 0
""",
        """    cdef char op = b"T" if transpose_b else b"N"
    cdef real one = 1
    cdef real beta = 0
""",
        BLAS_ONLY,
    ),
    # --- products over panels --------------------------------------------------------------------
    Mutation(
        "what came before dropped from the second block of k on",
        PANELS,
        "it.initial = it.out;",
        "it.initial = NULL;",
    ),
    Mutation(
        "bias of the first panel in all of them",
        PANELS,
        "initial != NULL ? initial + row * ld_initial + column : NULL,",
        "initial != NULL ? initial + row * ld_initial : NULL,",
    ),
    Mutation(
        "a block of k takes the first block's h",
        STEPS,
        ".a = h_prev + k,",
        ".a = h_prev,",
    ),
    Mutation(
        "the last block of k takes the first block's h",
        STEPS,
        "h_prev != NULL ? h_prev + row * ld_h_prev + k : NULL,",
        "h_prev != NULL ? h_prev + row * ld_h_prev : NULL,",
    ),
    Mutation(
        "second panel of a pair is the first's next k",
        STEPS,
        ".panel_stride = PANEL * hidden,",
        ".panel_stride = PANEL,",
    ),
    Mutation(
        "rows of a transposed A are taken to be apart",
        PANELS,
        "it->a, transposed ? 1 : it->stride,",
        "it->a, it->stride,",
    ),
    Mutation(
        "a transposed A's later rows are the first 120",
        PANELS,
        "a + (k + j) * ld_a + row,",
        "a + (k + j) * ld_a,",
    ),
    Mutation(
        "every tile of a step has the first one's pre-activations",
        STEPS,
        ".pre = pre + row * ld_pre + column,",
        ".pre = pre + column,",
    ),
    Mutation(
        "panels of gates have f before i and o before g",
        PANELS,
        "(panels + g * V_WIDTH, PANEL, weight",
        "(panels + (g ^ 1) * V_WIDTH, PANEL, weight",
    ),
    Mutation(
        "no zeros past the last column of a panel",
        PANELS,
        "STORE_WEIGHTS(panel + k * stride, v_set(0));",
        "STORE_WEIGHTS(panel + k * stride, v_set(1));",
    ),
    Mutation(
        "columns past the last one stored",
        PANELS,
        "v_store_n(to + v * V_WIDTH, row[v], columns < V_WIDTH ? columns : V_WIDTH);",
        "v_store(to + v * V_WIDTH, row[v]);",
    ),
    Mutation(
        "product overwrites instead of adding",
        PANELS,
        "k > 0 || accumulate ? it.out : NULL;",
        "k > 0 ? it.out : NULL;",
    ),
    Mutation(
        "product keeps its last block of k alone",
        PANELS,
        "k > 0 || accumulate ? it.out : NULL;",
        "accumulate ? it.out : NULL;",
    ),
    Mutation(
        "a row alone is rounded twice",
        PANELS,
        "acc[r * panels + p][v] = v_fma(x, w[v], acc[r * panels + p][v]);",
        """acc[r * panels + p][v] = rows > 1 ? v_fma(x, w[v], acc[r * panels + p][v])
                                                      : v_add(v_mul(x, w[v]), acc[p][v]);""",
    ),
    # --- backward, step by step ------------------------------------------------------------------
    Mutation(
        "dh from the step itself instead of the one after",
        CORE,
        "&gates[row_next + begin, 0] if begin < later else NULL,",
        "&gates[row + begin, 0] if begin < later else NULL,",
    ),
    Mutation(
        "sequences with a step before pass for those with one after",
        CORE,
        "&gates[row_next + begin, 0] if begin < later else NULL,",
        "&gates[row_next + begin, 0] if begin < entered else NULL,",
    ),
    Mutation(
        "a segment runs on past the sequences with a step after",
        CORE,
        """            if begin < later:
                end = min(end, later)
""",
        "",
    ),
    Mutation(
        "a segment runs on past the sequences with a step before",
        CORE,
        """                end = min(end, entered)
""",
        "",
    ),
    Mutation(
        "nothing carried back to the initial state",
        CORE,
        """        if entered < rows:
            carry_back(""",
        """        if False:
            carry_back(""",
    ),
    Mutation(
        "the initial state's dh from other sequences",
        CORE,
        "carry_back(&d_h[first + entered, 0], &gates[row + entered, 0],",
        "carry_back(&d_h[first + entered, 0], &gates[row, 0],",
    ),
    Mutation(
        "d_output left out of the fused step",
        STEPS,
        """            if (it->d_output != NULL)
""",
        """            if (0)
""",
    ),
    Mutation(
        "dh without a step after begins at zero",
        STEPS,
        "const real *initial = d_next != NULL ? NULL : d_h + unit;",
        "const real *initial = NULL;",
    ),
    Mutation(
        "a fused step keeps its last block of k alone",
        STEPS,
        "k += step, initial = d_h + unit)",
        "k += step)",
    ),
    Mutation(
        "the tiles of a fused step begin with the first one's dh",
        STEPS,
        ".initial = initial != NULL ? initial + row * hidden : NULL,",
        ".initial = initial,",
    ),
    # --- panels, narrow and in pairs -------------------------------------------------------------
    Mutation(
        "second panel of a fused step's pair is elsewhere",
        STEPS,
        ".panel_stride = PANEL * GATES * hidden,",
        ".panel_stride = PANEL * hidden,",
    ),
    Mutation(
        "second panel of a product's pair is elsewhere",
        PANELS,
        ".panel_stride = PANEL * inner,",
        ".panel_stride = PANEL,",
    ),
    Mutation(
        "second panel of a pair takes the first one's initial values",
        PANELS,
        "from == NULL ? NULL : from + k / panels * ld_from + column,",
        "from == NULL ? NULL : from + k / panels * ld_from,",
    ),
    Mutation(
        "a whole number of vectors gets one more",
        PANELS,
        "(int)((columns + V_WIDTH - 1) / V_WIDTH)",
        "(int)(columns / V_WIDTH + 1)",
    ),
    Mutation(
        "blocks of k of a narrow panel as far apart as of a whole one",
        PANELS,
        "it.panel += it.inner * width;",
        "it.panel += it.inner * PANEL;",
    ),
    Mutation(
        "last block of k of a fused step's narrow panel likewise",
        STEPS,
        """.panel = panel + k * width * V_WIDTH,
                .panel_stride""",
        """.panel = panel + k * PANEL,
                .panel_stride""",
    ),
    Mutation(
        "from the end, a narrow panel is not the first",
        PANELS,
        "if (descending && left % PANEL != 0)",
        "if (0)",
    ),
    Mutation(
        "from the end, a share of a step begins at the first unit",
        STEPS,
        "descending ? first * GATES + left - some : end - left",
        "descending ? left - some : end - left",
    ),
    Mutation(
        "from the end, a share of a fused step likewise",
        STEPS,
        "descending ? first + left - some : last - left",
        "descending ? left - some : last - left",
    ),
    # --- threads ---------------------------------------------------------------------------------
    Mutation(
        "each thread steps all units",
        STEP,
        """weight_hh, rows, hidden, unit, unit_end,
                  ld_h,""",
        """weight_hh, rows, hidden, 0, hidden,
                  ld_h,""",
    ),
    Mutation(
        "each thread steps all units back",
        STEP,
        "unit, unit_end, ld_d_output, descending)",
        "0, hidden, ld_d_output, descending)",
    ),
    Mutation(
        "the units of a share that end the sequence are the first",
        CORE,
        "memcpy(h_n + b * hidden + unit, h + b * ld_h + unit, width)",
        "memcpy(h_n + b * hidden + unit, h + b * ld_h, width)",
    ),
    Mutation(
        "carried back to the first units alone",
        STEP,
        "weight_hh + unit * 4 * hidden, rows,",
        "weight_hh, rows,",
    ),
    Mutation(
        "bias of the first units for all shares",
        STEP,
        "width, bias + column, 0, x,",
        "width, bias, 0, x,",
    ),
    Mutation(
        "a small team leaves shares of units undone",
        CORE,
        """        part.unit = shares[n_shares * member // team]
        part.unit_end = shares[n_shares * (member + 1) // team]
""",
        """        part.unit = shares[member]
        part.unit_end = shares[member + 1]
""",
    ),
    Mutation(
        "a small team leaves blocks of sequences undone",
        CORE,
        """        part.first = blocks[n_blocks * member // team]
        part.last = blocks[n_blocks * (member + 1) // team]
""",
        """        part.first = blocks[member]
        part.last = blocks[member + 1]
""",
    ),
    Mutation(
        "nobody waits for the other units of h",
        CORE,
        """        if part.by_units:
            _meet(part)
        if staying""",
        "        if staying",
    ),
    Mutation(
        "nobody waits for the other units' gradients",
        CORE,
        """        if part.by_units:
            _meet(part)
        if entered""",
        "        if entered",
    ),
    Mutation(
        "nobody waits for the projection of other rows",
        CORE,
        """        if not part.by_units:
            _meet(part)
        _forward_steps""",
        "        _forward_steps",
    ),
    # --- flush-to-zero ---------------------------------------------------------------------------
    Mutation(
        "forward leaves the thread flushing",
        CORE,
        """            _meet(part)
    fastlstm_flush_end(mode)
""",
        """            _meet(part)
""",
    ),
    Mutation(
        "backward leaves the thread flushing",
        CORE,
        """        t = t - step
    fastlstm_flush_end(mode)
""",
        """        t = t - step
""",
    ),
    Mutation(
        "forward does not flush",
        CORE,
        """mode = fastlstm_flush_begin()
    cdef Py_ssize_t n_chunks""",
        """mode = 0
    cdef Py_ssize_t n_chunks""",
    ),
    Mutation(
        "backward does not flush",
        CORE,
        """mode = fastlstm_flush_begin()
    cdef Py_ssize_t hidden""",
        """mode = 0
    cdef Py_ssize_t hidden""",
    ),
    Mutation(
        "operands below the normal range are not flushed",
        FLUSH,
        "#define FLUSH_BITS 0x8040u",
        "#define FLUSH_BITS 0x8000u",
    ),
    Mutation(
        "a caller who flushes finds it turned off",
        FLUSH,
        "((unsigned)before & FLUSH_BITS)",
        "(unsigned)(before & 0)",
    ),
    # --- derived weights -------------------------------------------------------------------------
    Mutation(
        "b_hh dropped",
        WEIGHTS,
        'self._parameters[f"bias_ih{suffix}"] + self._parameters[f"bias_hh{suffix}"]',
        'self._parameters[f"bias_ih{suffix}"]',
    ),
    Mutation(
        "b_ih added twice",
        WEIGHTS,
        'self._parameters[f"bias_ih{suffix}"] + self._parameters[f"bias_hh{suffix}"]',
        'self._parameters[f"bias_ih{suffix}"] * 2 + self._parameters[f"bias_hh{suffix}"]',
    ),
    Mutation(
        "derived weights never renewed",
        WEIGHTS,
        "if found is None or found[0] != version:",
        "if found is None:",
    ),
    Mutation(
        "weights that changed while they were read pass for fresh",
        WEIGHTS,
        """            found = kept[key] = version, derive(key)
""",
        """            value = derive(key)
            found = kept[key] = self._parameters.version, value
""",
    ),
    Mutation(
        "backward's panels made of W_ih",
        WEIGHTS,
        'self.matrix(f"weight_hh{suffix}", transposed=False',
        'self.matrix(f"weight_ih{suffix}", transposed=False',
    ),
    Mutation(
        "backward's panels transposed",
        WEIGHTS,
        "_pack(weight, transposed=transposed) if",
        "_pack(np.ascontiguousarray(weight.T), transposed=transposed) if",
    ),
    Mutation(
        "a copy's cache does not see the copy change",
        WEIGHTS,
        "self.__init__(parameters)  # type: ignore[misc]",
        "self.__init__(Parameters(parameters))  # type: ignore[misc]",
    ),
    # --- layers and directions -------------------------------------------------------------------
    Mutation(
        "h_0 and c_0 swapped",
        STACK,
        "h[direction.index], c[direction.index], cuts",
        "c[direction.index], h[direction.index], cuts",
    ),
    Mutation(
        "directions swapped in the output",
        STACK,
        "slice(k * self.state_size, (k + 1) * self.state_size)",
        "slice(k * self.state_size, (k + 1) * self.state_size) if self.directions == 1 else "
        "slice((1 - k) * self.state_size, (2 - k) * self.state_size)",
    ),
    Mutation(
        "directions swapped in the states",
        STACK,
        "index=layer * self.directions + k,",
        "index=(layer + 1) * self.directions - 1 - k,",
    ),
    Mutation(
        "directions swapped in time",
        STACK,
        "backwards=self.reverse or k == 1,",
        "backwards=self.reverse or k == 0,",
    ),
    Mutation(
        "pre-activations without room for a panel's rest",
        STACK,
        "pre = _scratch.take((widest, len(own.bias)), dtype)",
        "pre = _scratch.take((widest, 4 * hidden), dtype)",
    ),
    Mutation(
        "the buffer holds only the smallest chunk",
        PACKING,
        "np.diff(self.offsets[bounds]).max(initial=0)",
        "np.diff(self.offsets[bounds]).min(initial=1 << 30)",
    ),
    Mutation(
        "d_x of the second direction overwrites the first's",
        STACK,
        "out=d_x[rows], accumulate=direction.second)",
        "out=d_x[rows], accumulate=False)",
    ),
    Mutation(
        "d_x of a reverse first direction added to what was there",
        STACK,
        "out=d_x[rows], accumulate=direction.second)",
        "out=d_x[rows], accumulate=direction.backwards)",
    ),
    Mutation(
        "reverse ignored",
        STACK,
        "backwards=self.reverse or k == 1,",
        "backwards=k == 1,",
    ),
    Mutation(
        "d_x of the first direction added to what was there",
        STACK,
        "out=d_x[rows], accumulate=direction.second)",
        "out=d_x[rows], accumulate=True)",
    ),
    Mutation(
        "first row of each run left out of dW_ih",
        GRADIENTS,
        "d_ih[some], x[rows], transpose_a=True",
        "d_ih[some][1:], x[rows][1:], transpose_a=True",
    ),
    Mutation(
        "only the last run counts in dW_hh",
        GRADIENTS,
        "accumulate=self._begun_hh",
        "accumulate=False",
    ),
    Mutation(
        "only the last run counts in the bias",
        GRADIENTS,
        "out=self.d_bias, accumulate=self._begun)",
        "out=self.d_bias, accumulate=False)",
    ),
    Mutation(
        "h_t for h of the step before in dW_hh, of equal lengths",
        GRADIENTS,
        "run.h[entered - batch : end - batch]",
        "run.h[entered:end]",
    ),
    Mutation(
        "h_t for h of the step after in dW_hh, of equal lengths",
        GRADIENTS,
        "run.h[begin + batch : entered + batch]",
        "run.h[begin:entered]",
    ),
    Mutation(
        "a given h_0 left out of dW_hh",
        GRADIENTS,
        "if begin == 0 and not run.zero_state:",
        "if begin == 0 and run.zero_state:",
    ),
    Mutation("dW_hh of one step not zeroed", GRADIENTS, "d_hh[...] = 0", "d_hh[...] = 1"),
    Mutation(
        "dropout mask skipped in backward",
        STACK,
        "kept.mask.times(d_x, out=d_x)",
        "pass",
    ),
    Mutation(
        "dropout between layers on the input of the first",
        DROPOUT,
        "(own.on_input, True) if first",
        "(own.between_layers, own.locked) if first",
    ),
    Mutation(
        "gradients of no rows not zeroed", GRADIENTS, "d_bias[...] = 0, 0", "d_bias[...] = 1, 1"
    ),
    Mutation("dropout does not scale what it keeps", RANDOM, "1 / (1 - p) if p < 1", "1 if p < 1"),
    Mutation("initial weights all positive", RANDOM, "uniform(-bound, bound", "uniform(0, bound"),
    Mutation(
        "dropout: a locked mask is another one at each step",
        DROPOUT,
        "p, locked = (own.on_input, True)",
        "p, locked = (own.on_input, False)",
    ),
    Mutation(
        "dropout: between layers it is never locked",
        DROPOUT,
        "(own.between_layers, own.locked)",
        "(own.between_layers, False)",
    ),
    Mutation(
        "dropout: whose mask is whose depends on lengths",
        DROPOUT,
        "factors = packing.sort(dropout_mask(self._rng, shape, p, rows.dtype))[0]",
        "factors = dropout_mask(self._rng, shape, p, rows.dtype)[0]",
    ),
    Mutation(
        "dropout: of unequal lengths all have the first one's mask",
        DROPOUT,
        "self.factors[self.packing.sequences[some]]",
        "self.factors[self.packing.sequences[some] * 0]",
    ),
    Mutation(
        "dropout: back through weights that are all there",
        WEIGHTS,
        "transposed=False, mask=hh_mask)",
        "transposed=False)",
    ),
    Mutation(
        "dropout: dropped weights have gradients",
        GRADIENTS,
        "self.d_hh *= self._run.hh_mask",
        "pass",
    ),
    Mutation(
        "dropout: what a layer gave is masked where backward reads it",
        STACK,
        "out=x if first else _scratch.take(x.shape, self.dtype))",
        "out=x)",
    ),
    # --- gates made anew -------------------------------------------------------------------------
    Mutation(
        "anew: all segments begin with the last c",
        STACK,
        "run.starts[k] = c_n[: part.batch].copy()",
        "run.starts[k] = c_n[: part.batch]",
    ),
    Mutation(
        "anew: the first segment first",
        RECOMPUTE,
        "in_order(len(run.segments), not backwards)",
        "in_order(len(run.segments), backwards)",
    ),
    Mutation(
        "anew: chunks in the order of time, backwards too",
        RECOMPUTE,
        "in reversed(chunks) if backwards else chunks:",
        "in chunks:",
    ),
    Mutation(
        "anew: runs of a segment summed in the order of time",
        GRADIENTS,
        "segment.runs if self._backwards else reversed(segment.runs):",
        "segment.runs:",
    ),
    Mutation(
        "anew: h of the step before left out",
        RECOMPUTE,
        "_add_product(own, h_prev, weights.hh, None, weights.packed)",
        "pass",
    ),
    Mutation(
        "anew: products added to what the first row holds",
        DENSE,
        "initial, ld_initial = &out[row, first], out.shape[1]",
        "initial, ld_initial = &out[row, first], 0",
    ),
    Mutation(
        "anew: every cell begins with the segment's c",
        CELLS,
        "&c[offsets[t - step] + sequence, 0]",
        "&c_0[sequence, 0]",
    ),
    Mutation(
        "anew: entering sequences begin with another's c",
        CELLS,
        "<real*>NULL, &c_0[sequence + entered, 0]",
        "<real*>NULL, &c_0[sequence, 0]",
    ),
    Mutation(
        "anew: cells do not flush",
        CELLS,
        "cdef uint64_t mode = fastlstm_flush_begin()",
        "cdef uint64_t mode = 0",
    ),
    Mutation(
        "anew: cells leave the thread flushing",
        CELLS,
        """        t = t + step
    fastlstm_flush_end(mode)
""",
        """        t = t + step
""",
    ),
    Mutation(
        "anew: a segment for every run",
        RECOMPUTE,
        "each = math.ceil(math.sqrt(len(packing.active)) / steps)",
        "each = 1",
    ),
    Mutation(
        "anew: a cell with options is taken for a plain one",
        LAYER,
        "and not self._stack.is_plain(masks):",
        "and False:",
    ),
    # --- the layer -------------------------------------------------------------------------------
    Mutation(
        "gradient of the final c ignored",
        LAYER,
        "self._pack_states(sequences, d_h, d_c)",
        "self._pack_states(sequences, d_h, None)",
    ),
    Mutation(
        "h_n and c_n swapped",
        LAYER,
        "return sequences.unpack_state(h), sequences.unpack_state(c)",
        "return sequences.unpack_state(c), sequences.unpack_state(h)",
    ),
    Mutation(
        "lengths ignored",
        SEQUENCES,
        "Sequences(Packing(steps, batch, lengths), batched, batch_first)",
        "Sequences(Packing(steps, batch, None), batched, batch_first)",
    ),
    Mutation(
        "tape reads the caller's x",
        LAYER,
        "rows = _scratch.copy(rows)",
        "rows = rows",
    ),
    Mutation(
        "W_f and W_i of from_gates swapped",
        LAYER,
        'weights = {"W_i": W_i, "W_f": W_f,',
        'weights = {"W_i": W_f, "W_f": W_i,',
    ),
    # --- packing, tape, parameters ---------------------------------------------------------------
    Mutation(
        "each sequence one step too short",
        PACKING,
        "runs = np.arange(lengths.max())[:, np.newaxis] < lengths[order]",
        "runs = np.arange(lengths.max())[:, np.newaxis] < lengths[order] - 1",
    ),
    Mutation(
        "mask: holes come before the valid steps",
        PACKING,
        "np.argsort(~mask, axis=0",
        "np.argsort(mask, axis=0",
    ),
    Mutation(
        "mask: both directions hold what came from earlier",
        PACKING,
        "mask = self._mask.T[:, ::-1] if backwards else self._mask.T",
        "mask = self._mask.T",
    ),
    Mutation(
        "mask: only the last of a step's holes has a gradient",
        PACKING,
        "np.add.reduceat(padded[step, sequence, columns], first, axis=0)",
        "padded[step, sequence, columns][np.append(first[1:], len(before)) - 1]",
    ),
    Mutation(
        "mask: the gradient at a valid step is lost to its holes",
        PACKING,
        "columns] += sums",
        "columns] = sums",
    ),
    Mutation(
        "mask: a tape sees what the caller makes of it later",
        SEQUENCES,
        "mask=valid.copy()",
        "mask=valid",
    ),
    Mutation(
        "states sorted again instead of back",
        PACKING,
        "restored[:, self._order] = states",
        "restored[...] = states[:, self._order]",
    ),
    Mutation("ones past the ends", PACKING, "padded = np.zeros(", "padded = np.ones("),
    Mutation(
        "last chunk ends a step early",
        PACKING,
        "np.append(np.arange(0, longest, stride), longest)",
        "np.append(np.arange(0, longest, stride), longest - 1)",
    ),
    Mutation(
        "last block loses a sequence",
        PACKING,
        "np.minimum(cuts, self.batch), [self.batch]]",
        "np.minimum(cuts, self.batch), [self.batch - 1]]",
    ),
    Mutation(
        "tape not used up",
        TAPE,
        "saved, self._saved = self._saved, None",
        "saved = self._saved",
    ),
    Mutation("stale tape accepted", TAPE, "if version != self._version:", "if False:"),
    Mutation("another layer's tape accepted", TAPE, "tape._owner is not owner", "False"),
    Mutation("version not moved", PARAMETERS, "counter[0] += 1", "counter[0] += 0"),
    Mutation(
        "weights stay writable after an update",
        PARAMETERS,
        """        finally:
            self._freeze()
""",
        """        finally:
""",
    ),
    Mutation(
        "weights loaded feed on each other",
        PARAMETERS,
        "checked = {name: array.copy() for name, array in checked.items()}",
        "checked = dict(checked)",
    ),
    # --- streams ---------------------------------------------------------------------------------
    Mutation(
        "stream: h is written where it is read",
        STEPPER,
        "<real*>self.h + (1 - self.turn) * self.layers * size",
        "<real*>self.h + self.turn * self.layers * size",
    ),
    Mutation(
        "stream: the state counts as zero for ever",
        STEPPER,
        "self.turn, self.zero = 1 - self.turn, False",
        "self.turn = 1 - self.turn",
    ),
    Mutation(
        "stream: a state that is set counts as zero",
        STEPPER,
        "            self.zero = False\n",
        "",
    ),
    Mutation(
        "stream: a layer above sees no new x",
        STEPPER,
        "x, inner = h, hidden",
        "inner = hidden",
    ),
    Mutation(
        "stream: stale weights accepted",
        STEPPER,
        "if <void*>self.counter[0] is not <void*>self.version:",
        "if False:",
    ),
    Mutation("stream: open to two users at once", STEPPER, "self.busy = True", "pass"),
    Mutation(
        "stream: an error leaves it in use",
        STEPPER,
        """        finally:
            self.busy = False
        return out
""",
        """        except TypeError:
            raise
        self.busy = False
        return out
""",
    ),
    Mutation(
        "stream: rows of x_t unchecked",
        STEPPER,
        "view.ndim == 2 and view.shape[0] == rows and",
        "view.ndim == 2 and",
    ),
    Mutation(
        "stream: alignment and byte order unchecked",
        STEPPER,
        "fits = view.format[0] == kind and view.format[1] == 0",
        "fits = view.format[0] == kind or view.format[1] == kind",
    ),
    Mutation(
        "stream: read-only arrays written",
        STEPPER,
        "if not _look(target, &h, PyBUF_WRITABLE, self.kind, self.axis, self.hidden):\n"
        "                    target =",
        "if not _look(target, &h, 0, self.kind, self.axis, self.hidden):\n"
        "                    target =",
    ),
    Mutation(
        "stream: buffers are kept",
        STEPPER,
        "PyBuffer_Release(&x)",
        "pass",
    ),
    Mutation(
        "stream: the mode of the thread is not restored",
        STEPPER,
        "    fastlstm_flush_end(mode)\n",
        "",
    ),
    Mutation(
        "stream: the state that is read is no copy",
        STEPPER,
        "return self.h_array[self.turn].copy(), self.c_array.copy()",
        "return self.h_array[self.turn], self.c_array",
    ),
    Mutation(
        "stream: opened on weights older than its version",
        STREAM,
        "            version,\n",
        "            counter[0],\n",
    ),
    # --- CTC -------------------------------------------------------------------------------------
    Mutation(
        "ctc: no blank needed between labels that repeat",
        CTC,
        "return j == 0 or it.labels[j] != it.labels[j - 1]",
        "return True",
    ),
    Mutation("ctc: smaller numbers left out of a sum", CTC, "+= b.mantissa * DOWN", "+= 0"),
    Mutation(
        "ctc: the end out of reach of a state from which it is not",
        CTC,
        "it.states - 2 * (it.steps - t))",
        "it.states - 2 * (it.steps - t) + 1)",
    ),
    Mutation("ctc: the posterior of a step kept", CTC, "posterior[label] = 0", "pass"),
    Mutation(
        "ctc: beta of the step after the last one counted again",
        CTC,
        "            ahead[it.states] = zero\n",
        "            pass\n",
    ),
    Mutation(
        "ctc: no zeros past an end",
        CTC,
        "memset(&d_logits[t, b, 0], 0,",
        "memset(&d_logits[t, b, 0], 1,",
    ),
    Mutation("ctc: one scratch for all threads", CTC, "scratch[team_member(), 0]", "scratch[0, 0]"),
    Mutation(
        "ctc: an emission of the label before",
        CTC,
        "now[s] = _times(number, emissions[1 + s // 2])",
        "now[s] = _times(number, emissions[s // 2])",
    ),
]


class Copy:
    """A copy of the tree, built in place, in which one thing at a time is broken and mended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "build", "*.so", "*.egg-info")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / name)
        # What is right does not depend on optimisation, and most of a build's time does.
        setup = folder / "setup.py"
        text = setup.read_text(encoding="utf-8")
        assert text.count('"-O3"') == 1
        setup.write_text(text.replace('"-O3"', '"-O0"'), encoding="utf-8")
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",  # a stale cache would hide a mutation of Python code
        }
        self._bring_build_tools()
        self.build()
        self.pristine = {path: path.read_bytes() for path in self._libraries(folder / "src")}
        self._check_that_it_is_used()

    def build(self) -> None:
        # Linked anew even where only csrc/ has changed, of which the linker step knows nothing.
        for path in self._libraries(self.folder / "build"):
            path.unlink()
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        done = self._run(command)
        if done.returncode:
            sys.exit(f"{done.stdout}\ndoes not build")

    def tests(self, isa: str = "", files: list[str] = TESTS) -> tuple[bool, str]:
        """Whether they are green, on an instruction set if told, and the first that is not."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not oracle"]
        # The other instruction sets would be broken in the same way, at twice the time.
        command += ["-p", "no:cacheprovider", "-k", "not every_other_instruction_set", *files]
        try:
            done = self._run(command, isa)
        except subprocess.TimeoutExpired:
            return False, f"(still running after {TIMEOUT} s)"
        if done.returncode < 0:
            return False, f"(killed by signal {-done.returncode})"
        found = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not found:
            sys.exit(f"{done.stdout}\npytest ended with {done.returncode}")
        return done.returncode == 0, found[1] if found else ""

    def red_somewhere(self) -> str:
        """The first test that is red on the processor's own instruction set or with BLAS."""
        everything = [*TESTS, *itertools.chain(*TESTS_OF.values())]
        return self.tests(files=everything)[1] or self.tests(BLAS_ONLY)[1]

    def broken_by(self, mutation: Mutation) -> tuple[bool, str]:
        """What `tests` says while the mutation is in place."""
        path = self.folder / mutation.file
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            if mutation.compiled:
                self.build()
            return self.tests(mutation.isa, TESTS_OF.get(mutation.file, TESTS))
        finally:
            # With a new time, so that the next build does not take what came of the mutation.
            path.write_text(source, encoding="utf-8")
            for library, content in self.pristine.items() if mutation.compiled else ():
                library.unlink()  # never written over: that would crash whoever has it loaded
                library.write_bytes(content)

    def _run(self, command: list[str], isa: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"FASTLSTM_ISA": isa} if isa else {})
        return subprocess.run(
            command, cwd=self.folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
        )  # fmt: skip

    def _bring_build_tools(self) -> None:
        """What pyproject.toml wants for a build, unless this Python has it already."""
        if all(importlib.util.find_spec(name) for name in ("Cython", "setuptools")):
            return
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        tools = self.folder / "tools"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools)]
        subprocess.run([*command, *project["build-system"]["requires"]], check=True)
        self.environment["PYTHONPATH"] += os.pathsep + str(tools)

    def _check_that_it_is_used(self) -> None:
        program = "import fastlstm._core as core, fastlstm as package; "
        program += "print(core.__file__); print(package.__file__)"
        done = self._run([sys.executable, "-c", program])
        lines = done.stdout.split()
        if len(lines) != 2 or not all(Path(line).is_relative_to(self.folder) for line in lines):
            sys.exit(f"the tests would not see the copy in {self.folder}:\n{done.stdout}")

    @staticmethod
    def _libraries(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.suffix in (".so", ".pyd")]


def outdated(mutations: list[Mutation]) -> list[str]:
    """A line for each mutation whose pattern does not occur exactly once."""
    counts = {m: (ROOT / m.file).read_text(encoding="utf-8").count(m.old) for m in mutations}
    return [f"{m.name}: pattern occurs {n} times in {m.file}" for m, n in counts.items() if n != 1]


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    complaints = outdated(chosen)
    if complaints or not chosen:
        print("\n".join(complaints) or "no such mutation")
        return 1
    survivors = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder).resolve())
        red = copy.red_somewhere()
        if red:
            print(f"red without any mutation: {red}")
            return 1
        print(f"| {'mutation':<60} | {'file':<13} | {'seconds':>7} | turned red by")
        print(f"| {'-' * 60} | {'-' * 13} | {'-' * 7} | ---", flush=True)
        for mutation in chosen:
            start = time.monotonic()
            survived, by = copy.broken_by(mutation)
            seconds = time.monotonic() - start
            if survived:
                survivors.append(mutation)
            file = Path(mutation.file).name
            print(
                f"| {mutation.name:<60} | {file:<13} | {seconds:7.1f} | {by or 'NOTHING'}",
                flush=True,
            )
        red = copy.red_somewhere()
        if red:
            print(f"red after the last mutation was taken back: {red}; the table means nothing")
            return 1
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(chosen)} mutations, {len(survivors)} survived, {minutes:.1f} minutes")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

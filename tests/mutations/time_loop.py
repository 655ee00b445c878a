"""Mutations of the time loop: its steps, its threads, and the mode that it flushes in."""

from __future__ import annotations

from tests.mutations.mutation import (
    BLAS,
    BLAS_ONLY,
    CORE,
    DENSE,
    FLUSH,
    STEP,
    STEPS,
    Mutation,
)

MUTATIONS = [
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
]

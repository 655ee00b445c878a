"""Mutations of the general cell: its kernels, its loop, and its streams."""

from __future__ import annotations

from tests.mutations.mutation import CELL, DROPOUT, LOOP, RUNS, STREAM, Mutation

MUTATIONS = [
    # --- the cell --------------------------------------------------------------------------------
    Mutation(
        "cell: o peeks at c of the step before",
        CELL,
        "z_o[k] += p[2 * hidden + k] * c[k];",
        "z_o[k] += p[2 * hidden + k] * c_prev[k];",
    ),
    Mutation(
        "cell: i peeks with the weights of f",
        CELL,
        "z[k] += p[k] * c_prev[k];",
        "z[k] += p[hidden + k] * c_prev[k];",
    ),
    Mutation(
        "cell: nothing comes back through the peephole of o",
        CELL,
        "d_c[k] += d_o[k] * p[2 * hidden + k];",
        "(void)p;",
    ),
    Mutation(
        "cell: a gradient flows through what is clipped",
        CELL,
        "d[k] = z[k] <= -it->clip || z[k] >= it->clip ? 0 : d[k];",
        "d[k] = z[k] < -it->clip || z[k] > it->clip ? 0 : d[k];",
    ),
    Mutation(
        "cell: coupled gates, but i has its own gradient alone",
        CELL,
        "- (it->input_forget ? through_f : 0);",
        "- (it->input_forget ? 0 : 0);",
    ),
    Mutation(
        "cell: softplus of infinity",
        CELL,
        "exp(x[k] > 0 ? -(double)x[k] : (double)x[k])",
        "exp((double)x[k] - 2 * past)",
    ),
    Mutation(
        "cell: softsign of infinity",
        CELL,
        "size == (real)INFINITY ? sign : x[k] / (1 + size)",
        "sign != 0 ? x[k] / (1 + size) : 0",
    ),
    Mutation("cell: the slope of elu is its value", CELL, "y[k] + alpha : 1", "y[k] : 1"),
    Mutation(
        "norm: more is added to the variance",
        CELL,
        "#define NORM_EPSILON 1e-5",
        "#define NORM_EPSILON 1e-4",
    ),
    Mutation(
        "norm: the mean of the gradient stays in",
        CELL,
        "(d_x[k] - mean - normal[k] * along)",
        "(d_x[k] - 0 * mean - normal[k] * along)",
    ),
    Mutation(
        "norm: the gradient of gain_c is that of bias_c",
        CELL,
        "sums[3 * hidden + k] = d_seen[k] * normal[k];",
        "sums[3 * hidden + k] = d_seen[k];",
    ),
    # --- the loop --------------------------------------------------------------------------------
    Mutation(
        "loop: the expectation of zoneout holds what it should take",
        LOOP,
        "new[k] = keep * old[k] + take * new[k]",
        "new[k] = take * old[k] + keep * new[k]",
    ),
    Mutation(
        "loop: what zoneout holds has no gradient",
        LOOP,
        "_add(&d_h[first, 0], &past_h[first, 0], rows * width)",
        "pass",
    ),
    Mutation(
        "loop: a state is dropped forward alone",
        LOOP,
        "_multiply(&d_h[first, 0], &d_h[first, 0], &drop_h[first, 0], rows * width)",
        "pass",
    ),
    Mutation(
        "loop: the first sequence's c_0 for all that enter",
        LOOP,
        "&c_0[first + entered, 0],",
        "&c_0[first, 0],",
    ),
    Mutation(
        "loop: threads drop the state of the first sequences",
        LOOP,
        "_multiply(&dropped_h[kept, 0], h_prev, &drop_h[first, 0], rows * width)",
        "_multiply(&dropped_h[kept, 0], h_prev, &drop_h[0, 0], rows * width)",
    ),
    Mutation(
        "run: the gradient of what x gives passes its normalisation by",
        RUNS,
        '_core.normalize_back(d_ih, run.z, own["gain_ih"], normal_ih, scale_ih)',
        "d_ih[...] = run.z",
    ),
    # --- masks and streams -----------------------------------------------------------------------
    Mutation(
        "masks: the longest sequence's state is dropped as the first's",
        DROPOUT,
        "packing.sort(dropout_mask(self._rng, (1, packing.batch, width), p, dtype))[0]",
        "dropout_mask(self._rng, (1, packing.batch, width), p, dtype)[0]",
    ),
    Mutation(
        "masks: zoneout of c for h",
        DROPOUT,
        "sizes = (p_c, hidden), (p_h, width)",
        "sizes = (p_h, hidden), (p_c, width)",
    ),
    Mutation(
        "general stream: stale weights accepted",
        STREAM,
        "if self._parameters.version != self._version:",
        "if False:",
    ),
    Mutation(
        "general stream: open to two users at once",
        STREAM,
        "if not self._in_use.acquire(blocking=False):",
        "self._in_use = Lock()\n        if not self._in_use.acquire(blocking=False):",
    ),
]

"""Mutations of what an LSTM makes of its layers, its weights and its gradients."""

from __future__ import annotations

from tests.mutations.mutation import (
    CELLS,
    DENSE,
    DROPOUT,
    GRADIENTS,
    LAYER,
    PACKING,
    RANDOM,
    RECOMPUTE,
    SEQUENCES,
    STACK,
    WEIGHTS,
    Mutation,
)

MUTATIONS = [
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
]

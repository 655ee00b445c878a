"""Mutations of losses and what is near them: label smoothing, CTC, and prefix beam search."""

from __future__ import annotations

from tests.mutations.mutation import BEAM, CTC, DENSE, Mutation

_SMOOTHING = ("tests/test_losses.py",)
_ATTENTION = ("tests/test_attention.py",)

MUTATIONS = [
    # --- label smoothing and attention's softmax --------------------------------------------------
    Mutation(
        "smoothing: the target keeps all of its weight in the loss",
        DENSE,
        "shifted[row] = (1 - smoothing) * (<double>",
        "shifted[row] = (<double>",
        tests=_SMOOTHING,
    ),
    Mutation(
        "smoothing: the target keeps all of its weight in the gradient",
        DENSE,
        "<real>((1 - smoothing) / counted)",
        "<real>(1 / counted)",
        tests=_SMOOTHING,
    ),
    Mutation(
        "smoothing: no share for the classes at the end",
        DENSE,
        "range(whole, classes)",
        "range(0)",
        tests=_SMOOTHING,
    ),
    Mutation(
        "smoothing: a share for one class too many",
        DENSE,
        "counted / classes))",
        "counted / (classes - 1)))",
        tests=_SMOOTHING,
    ),
    Mutation(
        "smoothing: one of the sums left out",
        DENSE,
        "        total += sums[lane]",
        "        total = sums[lane]",
        tests=_SMOOTHING,
    ),
    Mutation(
        "softmax: what lies past an end counts",
        DENSE,
        "&most, &x[row, 0], n, 1.0)",
        "&most, &x[row, 0], out.shape[1], 1.0)",
        tests=_ATTENTION,
    ),
    Mutation(
        "softmax: no zeros past an end",
        DENSE,
        "memset(&out[row, n], 0,",
        "memset(&out[row, n], 1,",
        tests=_ATTENTION,
    ),
    Mutation(
        "batched product: the first matrix for all",
        DENSE,
        "                _matmul_rows(out[i], a[i], b[i], transpose_a, transpose_b, accumulate,\n"
        "                             0, out.shape[1], k, packed)\n        else:",
        "                _matmul_rows(out[i], a[i], b[0], transpose_a, transpose_b, accumulate,\n"
        "                             0, out.shape[1], k, packed)\n        else:",
        tests=_ATTENTION,
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
    # --- prefix beam search -----------------------------------------------------------------------
    Mutation(
        "beam: a label twice without a blank between",
        BEAM,
        "BLANK if c == last else",
        "TOTAL if c == last else",
    ),
    Mutation(
        "beam: a prefix that comes back made anew",
        BEAM,
        "while node and tree[node, LABEL] != label",
        "while node",
    ),
    Mutation(
        "beam: paths to a longer prefix in the beam lost",
        BEAM,
        "if place == NONE:",
        "if True:",
    ),
    Mutation(
        "beam: paths to a longer prefix in the beam counted apart", BEAM, "or inside[c] or", "or"
    ),
    Mutation("beam: a place outside of the beam kept", BEAM, "tree[beam[i], PLACE] = NONE", "pass"),
    Mutation("beam: what cannot be is kept", BEAM, "if score == -INFINITY:", "if False:"),
]

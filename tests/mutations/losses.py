"""Mutations of CTC: its loss, and prefix beam search."""

from __future__ import annotations

from tests.mutations.mutation import BEAM, CTC, Mutation

MUTATIONS = [
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

"""Mutations of the kernels: gates, and products over panels."""

from __future__ import annotations

from tests.mutations.mutation import (
    BLAS_ONLY,
    KERNELS,
    PANELS,
    STEP,
    STEPS,
    Mutation,
)

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
]

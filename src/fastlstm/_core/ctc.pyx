"""CTC (Graves et al. 2006): the loss and its gradient by forward-backward, sequence by sequence.

Design. With S labels there are 2S + 1 states: a blank before, between and after the labels, so
that state s is a blank where s is even and label s // 2 where it is odd. A path stays in its
state, moves to the next one, or skips a blank between labels that differ. alpha(t, s) is what the
paths that have come to s at step t have in probability, step t included; beta(t, s) what is left
of them from s to the end, step t left out. Their product over the whole is the posterior, and
softmax - posterior is the gradient of the logits.

- Numbers. Probabilities of long sequences are far below what a double holds, and those of two
  states at one step may be as far apart, so that one scale for each step would lose paths. As
  logarithms each sum takes an exp and a log for each of its terms. Here a number has an exponent
  of its own instead (Wide): as wide in range, as exact as a double, and some additions and
  multiplications. Only an emission, the probability of one class at one step, takes an exp.
- States that no path from start to end goes through at a step are never touched: at step t those
  before 2S + 1 - 2 (T - t), and those from 2 (t + 1) on.
- Threads take sequences, each of which is computed alone and in one order: the same bits on any
  number of threads. What lies past the length of a sequence is never read.

Arguments are trusted: the validator stood before. The debug build checks bounds.
"""

from cython.parallel cimport prange
from libc.math cimport INFINITY, NAN, exp, log, rint
from libc.string cimport memset

from fastlstm._core.blas cimport real
from fastlstm._core.kernels cimport softmax
from fastlstm._core.threads cimport team_member

cdef extern from *:
    """
    #define FASTLSTM_WIDE_LEAST 0x1p-256
    #define FASTLSTM_WIDE_MOST 0x1p256
    #define FASTLSTM_WIDE_UP 0x1p512
    #define FASTLSTM_WIDE_DOWN 0x1p-512
    #define FASTLSTM_WIDE_LOG 354.891356446691973867  /* 512 ln 2 */
    """
    const double LEAST "FASTLSTM_WIDE_LEAST"
    const double MOST "FASTLSTM_WIDE_MOST"
    const double UP "FASTLSTM_WIDE_UP"
    const double DOWN "FASTLSTM_WIDE_DOWN"
    const double LOG_UP "FASTLSTM_WIDE_LOG"

cdef struct Wide:
    # The number mantissa · 2^(512 exponent), >= 0. The mantissa lies in [2^-256, 2^256], that of a
    # sum of three within thrice that; the exponent is whole, and a double so that no logit is
    # beyond it. Zero is (0, -inf), which needs no case of its own.
    double mantissa
    double exponent


cdef struct Sequence:
    # What the passes over one sequence share. Rows of alpha have two more cells in front.
    Py_ssize_t steps, size, states
    const long long* labels              # (size,)
    Wide* emissions                      # (steps, 1 + size): of the blank, of the labels
    Wide* alpha                          # (1 + steps, 2 + states): row t + 1 is that of step t
    Wide* ahead                          # (states + 2,): beta of the next step, that included
    double* posterior                    # (classes,), zeros


# --- numbers with an exponent of their own -------------------------------------------------------

cdef inline Wide _wide(double mantissa, double exponent) noexcept nogil:
    cdef Wide number
    number.mantissa, number.exponent = mantissa, exponent
    return number


cdef inline Wide _plus(Wide a, Wide b) noexcept nogil:
    """a + b. More than one exponent apart, the smaller one is less than half an ulp."""
    if a.exponent == b.exponent:
        return _wide(a.mantissa + b.mantissa, a.exponent)
    if a.exponent < b.exponent:
        a, b = b, a
    if a.exponent == b.exponent + 1:
        a.mantissa += b.mantissa * DOWN
    return a


cdef inline Wide _times(Wide a, Wide b) noexcept nogil:
    """a · b, of which one may be a sum of three."""
    cdef double mantissa = a.mantissa * b.mantissa, exponent = a.exponent + b.exponent
    if mantissa < LEAST:
        return _wide(mantissa * UP, exponent - 1)
    if mantissa > MOST:
        return _wide(mantissa * DOWN, exponent + 1)
    return _wide(mantissa, exponent)


cdef inline Wide _wide_exp(double x) noexcept nogil:
    """exp(x)."""
    cdef double exponent, rest
    if x == -INFINITY:
        return _wide(0, -INFINITY)
    exponent = rint(x / LOG_UP)
    rest = x - exponent * LOG_UP
    # Of an x beyond 2^53 the rest is nothing but rounding.
    return _wide(exp(max(-LOG_UP / 2, min(rest, LOG_UP / 2))), exponent)


cdef inline double _share(Wide a, Wide b, Wide total) noexcept nogil:
    """a · b / total, which is at most 1 but for rounding."""
    cdef double exponent = a.exponent + b.exponent - total.exponent
    if exponent < -1 or exponent > 1:
        return 0
    cdef double share = a.mantissa * b.mantissa / total.mantissa
    if exponent == 0:
        return share
    return share * (DOWN if exponent < 0 else UP)


# --- the loss ------------------------------------------------------------------------------------

def ctc_loss(
    real[:, :, ::1] d_logits,            # OUT (steps, batch, classes)
    double[::1] losses,                  # OUT (batch,)
    const real[:, :, ::1] logits,        # IN  (steps, batch, classes)
    const long long[::1] labels,         # IN  (sum of sizes,): those of sequence b from starts[b]
    const long long[::1] starts,         # IN  (batch + 1,)
    const long long[::1] lengths,        # IN  (batch,): steps of each sequence
    const double[::1] factors,           # IN  (batch,): of each loss, for its gradient
    long long blank,
    bint zero_infinity,
    double[:, ::1] scratch,              # (threads, scratch_size of the largest sequence)
):
    """-log p(labels) of each sequence, and the gradients of factor · loss."""
    cdef Py_ssize_t batch = losses.shape[0]
    cdef int threads = <int>min(scratch.shape[0], batch)
    cdef Py_ssize_t b
    with nogil:
        if threads == 1:
            for b in range(batch):
                losses[b] = _sequence(d_logits, logits, b, labels, starts, lengths[b], factors[b],
                                      blank, zero_infinity, &scratch[0, 0])
        else:
            for b in prange(batch, num_threads=threads, schedule="dynamic"):
                losses[b] = _sequence(d_logits, logits, b, labels, starts, lengths[b], factors[b],
                                      blank, zero_infinity, &scratch[team_member(), 0])


def scratch_size(Py_ssize_t steps, Py_ssize_t size, Py_ssize_t classes):
    """Doubles that a sequence of so many steps and labels needs."""
    cdef Py_ssize_t row = 2 * size + 3
    return classes + 2 * (steps * (1 + size) + (steps + 1) * row + row)


cdef double _sequence(
    real[:, :, ::1] d_logits, const real[:, :, ::1] logits, Py_ssize_t b,
    const long long[::1] labels, const long long[::1] starts, Py_ssize_t steps, double factor,
    long long blank, bint zero_infinity, double* scratch,
) noexcept nogil:
    """The loss of sequence b; its part of d_logits is filled."""
    cdef Py_ssize_t classes = logits.shape[2], t
    cdef double loss
    cdef Sequence it
    cdef Wide total
    it.steps, it.size = steps, <Py_ssize_t>(starts[b + 1] - starts[b])
    it.states = 2 * it.size + 1
    it.labels = NULL if it.size == 0 else &labels[starts[b]]
    it.posterior = scratch
    it.emissions = <Wide*>(scratch + classes)
    it.alpha = it.emissions + steps * (1 + it.size)
    it.ahead = it.alpha + (steps + 1) * (it.states + 2)

    for t in range(steps, d_logits.shape[0]):
        memset(&d_logits[t, b, 0], 0, classes * sizeof(real))
    loss = 0
    for t in range(steps):
        # A NaN stays: it comes out of a row with a NaN, a +inf, or nothing but -inf.
        loss += _emit(&it, t, &d_logits[t, b, 0], &logits[t, b, 0], classes, blank, factor)
    if loss == 0:
        total = _forward(&it)
        loss = -(log(total.mantissa) + total.exponent * LOG_UP) if total.mantissa > 0 else INFINITY
    if loss < INFINITY:
        _backward(&it, d_logits, b, total, blank, factor)
        return loss if loss > 0 else 0  # rounding may leave -1e-16 of what is certain
    for t in range(steps):
        _fill(&d_logits[t, b, 0], classes, 0 if zero_infinity and loss == INFINITY else NAN)
    return 0 if zero_infinity and loss == INFINITY else loss


cdef inline void _fill(real* row, Py_ssize_t classes, double value) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(classes):
        row[k] = <real>value


cdef inline double _emit(
    Sequence* it, Py_ssize_t t, real* d_row, const real* row, Py_ssize_t classes,
    long long blank, double factor,
) noexcept nogil:
    """d_row = factor · softmax(row), and the emissions of step t; 0, or NaN if there are none."""
    cdef real most
    cdef double log_sum = log(softmax(d_row, &most, row, classes, factor))
    cdef Wide* out = it.emissions + t * (1 + it.size)
    cdef Py_ssize_t j
    if log_sum != log_sum:
        return NAN
    out[0] = _wide_exp(<double>row[blank] - most - log_sum)
    for j in range(it.size):
        out[1 + j] = _wide_exp(<double>row[it.labels[j]] - most - log_sum)
    return 0


cdef inline Py_ssize_t _first(Sequence* it, Py_ssize_t t) noexcept nogil:
    """The first state from which the end is within reach after step t."""
    return max(0, it.states - 2 * (it.steps - t))


cdef inline Py_ssize_t _last(Sequence* it, Py_ssize_t t) noexcept nogil:
    """One more than the last state that step t can have come to."""
    return min(it.states, 2 * (t + 1))


cdef inline bint _skips(Sequence* it, Py_ssize_t j) noexcept nogil:
    """Whether a path may come to label j from label j - 1, or the start, without a blank."""
    return j == 0 or it.labels[j] != it.labels[j - 1]


cdef Wide _forward(Sequence* it) noexcept nogil:
    """alpha of all steps; returns the probability of the labelling."""
    cdef Py_ssize_t width = it.states + 2, t, s, last
    cdef Wide* before = it.alpha + 2
    cdef Wide* now
    cdef Wide* emissions = it.emissions
    cdef Wide number, zero = _wide(0, -INFINITY)
    if it.size > it.steps:
        return zero
    # Before the first step, a path is in a state -1 of its own.
    for s in range(-2, it.states):
        before[s] = zero
    before[-1] = _wide(1, 0)
    for t in range(it.steps):
        now, last = before + width, _last(it, t)
        now[-2] = now[-1] = zero
        for s in range(_first(it, t), last):
            number = _plus(before[s], before[s - 1])
            if s % 2 == 0:
                now[s] = _times(number, emissions[0])
            else:
                if _skips(it, s // 2):
                    number = _plus(number, before[s - 2])
                now[s] = _times(number, emissions[1 + s // 2])
        for s in range(last, min(last + 2, it.states)):
            now[s] = zero
        before, emissions = now, emissions + 1 + it.size
    # With no steps or no labels, before[-1] of the last state 0 is a cell in front.
    return _plus(before[it.states - 1], before[it.states - 2])


cdef void _backward(
    Sequence* it, real[:, :, ::1] d_logits, Py_ssize_t b, Wide total, long long blank,
    double factor,
) noexcept nogil:
    """Take factor · posterior off the d_logits of all steps."""
    cdef Py_ssize_t width = it.states + 2, t, s, j
    cdef Wide* ahead = it.ahead
    cdef Wide* alpha
    cdef Wide* emissions
    cdef double* posterior = it.posterior
    cdef Wide beta, zero = _wide(0, -INFINITY)
    # After the last step, a path that is in one of the last two states is complete.
    for s in range(width):
        ahead[s] = zero
    ahead[it.states] = _wide(1, 0)
    memset(posterior, 0, d_logits.shape[2] * sizeof(double))
    for t in range(it.steps - 1, -1, -1):
        alpha = it.alpha + (t + 1) * width + 2
        emissions = it.emissions + t * (1 + it.size)
        for s in range(_first(it, t), _last(it, t)):
            # ahead[s] is overwritten, but no state after s looks at it.
            beta = _plus(ahead[s], ahead[s + 1])
            j = s // 2
            if s % 2 == 0:
                posterior[blank] += _share(alpha[s], beta, total)
                ahead[s] = _times(beta, emissions[0])
            else:
                if j + 1 == it.size or _skips(it, j + 1):
                    beta = _plus(beta, ahead[s + 2])
                posterior[it.labels[j]] += _share(alpha[s], beta, total)
                ahead[s] = _times(beta, emissions[1 + j])
        if t == it.steps - 1:
            ahead[it.states] = zero
        _take_off(&d_logits[t, b, 0], posterior, blank, factor)
        for j in range(it.size):
            _take_off(&d_logits[t, b, 0], posterior, it.labels[j], factor)


cdef inline void _take_off(
    real* d_row, double* posterior, long long label, double factor
) noexcept nogil:
    """A label's posterior of one step, once: it is zero afterwards."""
    d_row[label] -= <real>(factor * posterior[label])
    posterior[label] = 0

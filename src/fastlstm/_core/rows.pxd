# Where the rows of packed sequences are (packing.py): sorted by length, step by step, so that those
# of step t are offsets[t] to offsets[t + 1] and the sequences that have it are the first ones.


cdef inline Py_ssize_t alive(
    const Py_ssize_t[::1] offsets, Py_ssize_t t, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Sequences of the block [first, last) that have a step t; none outside of the sequence."""
    if t < 0 or t >= offsets.shape[0] - 1:
        return 0
    return max(0, min(offsets[t + 1] - offsets[t], last) - first)

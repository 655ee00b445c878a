"""Prefix beam search over CTC's log-probabilities (Hannun et al. 2014; Graves & Jaitly 2014).

Design. A prefix is a node of a tree that has one child for each label at most, so that a prefix
which leaves the beam and comes back is the same node, and a path to it is never counted apart. The
beam is a list of nodes, each with the log-probability of its paths that end in a blank and of those
that end in its last label. A step makes candidates of them, a prefix that stays and a prefix with
one more label, and keeps the best in a heap. A prefix with one more label that is in the beam
itself is no candidate: what it would bring is added where that one stays.

Arguments are trusted: decoding.py stood before. The debug build checks bounds.
"""

from libc.math cimport INFINITY, exp, log1p

cdef enum:
    # Columns of `tree`. The root is node 0 and has the label NONE, as has a prefix that stays.
    PARENT = 0
    LABEL = 1
    CHILD = 2    # the latest one, and 0 for none
    SIBLING = 3  # made before it, and 0 for none
    PLACE = 4    # in the beam, and NONE outside of it
    NONE = -1
    # Columns of `probs` and of the heap's numbers; TOTAL is what counts, with all that is added.
    BLANK = 0
    LAST = 1
    TOTAL = 2
    # Columns of the heap's origins: the place in the beam of the prefix, and what it gets.
    FROM = 0
    NEXT = 1


cdef inline double _log_add(double a, double b) noexcept nogil:
    """log(exp(a) + exp(b))."""
    cdef double most = max(a, b)
    return most if most == -INFINITY else most + log1p(exp(min(a, b) - most))


def advance(
    long long[:, ::1] tree,              # IN/OUT (capacity, 5)
    double[::1] added,                   # IN/OUT (capacity,): to the score of each node
    long long[::1] beam,                 # IN/OUT (width,): nodes
    double[:, ::1] probs,                # IN/OUT (width, 3)
    long long[::1] counts,               # IN/OUT (2,): in the beam, in the tree
    const double[:, ::1] log_probs,      # IN  (steps, classes)
    const double[:, ::1] extra,          # IN  (in the beam, classes), or None: for each next label
    double bonus,                        # for each next label, where `extra` is None
    double least,                        # of a next label's log-probability
    long long blank,
    double[:, ::1] numbers,              # scratch (width, 3)
    long long[:, ::1] origins,           # scratch (width, 2)
    unsigned char[::1] inside,           # scratch (classes,), zeros
):
    """Take some steps. The tree has room for `width` more nodes a step."""
    cdef Py_ssize_t t
    with nogil:
        for t in range(log_probs.shape[0]):
            _place(tree, beam, counts)
            counts[0] = _candidates(numbers, origins, tree, added, beam, probs, counts[0],
                                    log_probs[t], extra, bonus, least, blank, inside)
            _settle(tree, added, beam, probs, counts, extra, bonus, numbers, origins)


cdef void _place(
    long long[:, ::1] tree, const long long[::1] beam, const long long[::1] counts
) noexcept nogil:
    """Tell each node of the beam where it is."""
    cdef Py_ssize_t i
    for i in range(counts[0]):
        tree[beam[i], PLACE] = i


cdef Py_ssize_t _candidates(
    double[:, ::1] numbers, long long[:, ::1] origins, const long long[:, ::1] tree,
    const double[::1] added, const long long[::1] beam, double[:, ::1] probs,
    Py_ssize_t size, const double[::1] row, const double[:, ::1] extra, double bonus,
    double least, long long blank, unsigned char[::1] inside,
) noexcept nogil:
    """The best of all candidates of a step, in the heap; returns how many they are."""
    cdef Py_ssize_t classes = row.shape[0], kept = 0, i, c
    cdef long long node, last, child
    cdef double to_blank, to_last, score
    for i in range(size):
        probs[i, TOTAL] = _log_add(probs[i, BLANK], probs[i, LAST])
    for i in range(size):
        node, last = beam[i], tree[beam[i], LABEL]
        to_blank, to_last = probs[i, TOTAL] + row[blank], -INFINITY
        if last != NONE:
            to_last = _log_add(probs[i, LAST],
                               _start(tree, beam, probs, tree[tree[node, PARENT], PLACE], last))
            to_last += row[last]
        score = _log_add(to_blank, to_last) + added[node]
        kept = _offer(numbers, origins, kept, to_blank, to_last, score, i, NONE)

        child = tree[node, CHILD]
        while child:
            inside[tree[child, LABEL]] = tree[child, PLACE] != NONE
            child = tree[child, SIBLING]
        for c in range(classes):
            if c == blank or inside[c] or row[c] < least:
                continue
            # Its own last label again needs a blank between.
            to_last = row[c] + probs[i, BLANK if c == last else TOTAL]
            score = to_last + added[node] + (bonus if extra is None else extra[i, c])
            if kept < numbers.shape[0] or score > numbers[0, TOTAL]:
                kept = _offer(numbers, origins, kept, -INFINITY, to_last, score, i, c)
        child = tree[node, CHILD]
        while child:
            inside[tree[child, LABEL]] = False
            child = tree[child, SIBLING]
    return kept


cdef inline double _start(
    const long long[:, ::1] tree, const long long[::1] beam, const double[:, ::1] probs,
    Py_ssize_t place, long long label,
) noexcept nogil:
    """Of the paths from which a label makes a longer prefix; none from outside of the beam."""
    if place == NONE:
        return -INFINITY
    return probs[place, BLANK if tree[beam[place], LABEL] == label else TOTAL]


cdef Py_ssize_t _offer(
    double[:, ::1] numbers, long long[:, ::1] origins, Py_ssize_t kept,
    double to_blank, double to_last, double score, Py_ssize_t origin, Py_ssize_t label,
) noexcept nogil:
    """Keep a candidate if it is among the best; the worst of those is the first of the heap.

    Of equal ones the first stays. What cannot be is not kept.
    """
    cdef Py_ssize_t at, other
    if score == -INFINITY:
        return kept
    if kept < numbers.shape[0]:
        at, kept = kept, kept + 1
        while at and numbers[(at - 1) // 2, TOTAL] > score:
            _move(numbers, origins, at, (at - 1) // 2)
            at = (at - 1) // 2
    elif score <= numbers[0, TOTAL]:
        return kept
    else:
        at = 0
        while 2 * at + 1 < kept:
            other = 2 * at + 1
            if other + 1 < kept and numbers[other + 1, TOTAL] < numbers[other, TOTAL]:
                other += 1
            if numbers[other, TOTAL] >= score:
                break
            _move(numbers, origins, at, other)
            at = other
    numbers[at, BLANK], numbers[at, LAST], numbers[at, TOTAL] = to_blank, to_last, score
    origins[at, FROM], origins[at, NEXT] = origin, label
    return kept


cdef inline void _move(
    double[:, ::1] numbers, long long[:, ::1] origins, Py_ssize_t to, Py_ssize_t source
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(3):
        numbers[to, k] = numbers[source, k]
    for k in range(2):
        origins[to, k] = origins[source, k]


cdef void _settle(
    long long[:, ::1] tree, double[::1] added, long long[::1] beam, double[:, ::1] probs,
    long long[::1] counts, const double[:, ::1] extra, double bonus,
    const double[:, ::1] numbers, long long[:, ::1] origins,
) noexcept nogil:
    """Make the heap the beam, and nodes of prefixes that are new."""
    cdef Py_ssize_t i
    cdef long long node, parent, label
    for i in range(counts[0]):
        parent, label = beam[origins[i, FROM]], origins[i, NEXT]
        node = parent
        if label != NONE:
            node = _child(tree, counts, parent, label)
            added[node] = added[parent]
            added[node] += bonus if extra is None else extra[origins[i, FROM], label]
        origins[i, NEXT] = node
    # Only now: until here `beam` is that of the step before, of which each may come twice.
    for i in range(beam.shape[0]):
        if beam[i] != NONE:
            tree[beam[i], PLACE] = NONE
        beam[i] = NONE
    for i in range(counts[0]):
        beam[i] = origins[i, NEXT]
        probs[i, BLANK], probs[i, LAST] = numbers[i, BLANK], numbers[i, LAST]


cdef inline long long _child(
    long long[:, ::1] tree, long long[::1] counts, long long parent, long long label
) noexcept nogil:
    """The node of a prefix with one more label, made if there is none."""
    cdef long long node = tree[parent, CHILD]
    while node and tree[node, LABEL] != label:
        node = tree[node, SIBLING]
    if node == 0:
        node = counts[1]
        counts[1] += 1
        tree[node, PARENT], tree[node, LABEL] = parent, label
        tree[node, CHILD], tree[node, SIBLING] = 0, tree[parent, CHILD]
        tree[node, PLACE] = NONE
        tree[parent, CHILD] = node
    return node

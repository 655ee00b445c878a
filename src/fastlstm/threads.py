"""How many threads work, and the guard that keeps BLAS's own threads out of ours.

SciPy's OpenBLAS has a thread pool of its own. Two pools in one process spin against each other,
and a call of several of our threads into a BLAS that starts threads itself is worse. So while any
region of ours runs, SciPy's pool is held at one thread; the hold counts its holders, because the
setting belongs to the whole process and calls may overlap.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

from fastlstm import _core
from fastlstm._validate import check_size

# Floating-point operations, some tens of microseconds, below which a region of threads costs more
# than it saves, where the threads are awake; and how many times that where they sleep, for one
# takes tens of microseconds to wake.
LEAST_WORK = 5_000_000
ASLEEP = 4
# Seconds for which a thread that has had work stays awake, at the least: it spins (_openmp.py).
AWAKE = 50e-6

# More than this is refused: the system would run out of threads, and libgomp ends the process then.
MOST_THREADS = 1024


def available_cores() -> int:
    """Cores that this process may use: its affinity, within its cgroup's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or a quota of "max"
        pass
    return cores


def _threads_from_environment() -> int:
    for variable in ("FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may list one number for each nesting level.
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text.isascii() and text.isdigit() and 0 < int(text) <= MOST_THREADS:
            return int(text)
    return available_cores()


_num_threads = _threads_from_environment()


def get_num_threads() -> int:
    """The most threads that a call may use.

    At import: FASTLSTM_NUM_THREADS, else OMP_NUM_THREADS, else the cores of this process.
    """
    return _num_threads


def set_num_threads(num_threads: int) -> AbstractContextManager[None]:
    """Set the most threads that a call may use, for the whole process.

    Parameters
    ----------
    num_threads : int
        From 1 to 1024. Whether so many work is decided by the size of each call.

    Returns
    -------
    context manager
        It may be ignored. As ``with set_num_threads(2): ...`` it puts the number back that was
        there before the call, at the end of the block, in whatever way the block is left.

    Raises
    ------
    TypeError, ValueError
        If `num_threads` is no whole number from 1 to 1024.

    Examples
    --------
    >>> before = get_num_threads()
    >>> with set_num_threads(1):
    ...     get_num_threads()
    1
    >>> get_num_threads() == before
    True
    """
    global _num_threads
    before = _num_threads
    _num_threads = check_size("num_threads", num_threads, most=MOST_THREADS)
    return _Restore(before)


class _Restore:
    """Puts a number of threads back at the end of a block."""

    def __init__(self, before: int) -> None:
        self._before = before

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        global _num_threads
        _num_threads = self._before


class _Limit(threading.local):
    """The most threads that calls of one Python thread may use, below what the process may."""

    most = MOST_THREADS


_limit = _Limit()


@contextmanager
def at_most(num_threads: int) -> Iterator[None]:
    """No call of this Python thread has more threads inside of `with`.

    For code that runs within a framework whose own setting its user expects to hold.
    """
    before = _limit.most
    _limit.most = min(before, num_threads)
    try:
        yield
    finally:
        _limit.most = before


def _is_numpys(library: str) -> bool:
    return bool({"numpy.libs", "numpy"} & set(Path(library).parts[-3:-1]))


class _BlasHold:
    """Holds SciPy's BLAS pool at one thread from the first holder's entry to the last one's exit.

    `possible` is False where the pool cannot be found: then our regions have one thread.
    """

    def __init__(self) -> None:
        # Reentrant, for a signal handler that forks while its own thread is in here.
        self._lock = threading.RLock()
        self._holders = 0
        self._pools: list[Any] | None = None
        self._before: list[int] = []

    @property
    def possible(self) -> bool:
        return bool(self._find_pools())

    def description(self) -> str:
        return ", ".join(f"{pool.internal_api} {pool.version}" for pool in self._find_pools())

    def _find_pools(self) -> list[Any]:
        if self._pools is None:
            from threadpoolctl import ThreadpoolController

            blas = ThreadpoolController().select(user_api="blas").lib_controllers
            # NumPy's wheel brings a BLAS of its own (numpy.libs/), which is none of our business.
            self._pools = [pool for pool in blas if not _is_numpys(pool.filepath)] or blas
        return self._pools

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                pools = self._find_pools()
                self._before = [pool.get_num_threads() for pool in pools]
                self._set([1] * len(pools))
            self._holders += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for pool, count in zip(self._find_pools(), counts, strict=True):
            if pool.get_num_threads() != count:
                _release(pool)
                pool.set_num_threads(count)
                _release(pool)

    def before_fork(self) -> None:
        """No fork while another thread sets sizes: the child would inherit locks that are taken."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget holders that exist only in the parent."""
        self._lock = threading.RLock()
        if self._holders:
            self._holders = 0
            self._set(self._before)


def _release(pool: Any) -> None:
    """Let any thread set the pool's size.

    threadpoolctl >= 3.7 gives OpenBLAS to the first Python thread that sets its size and quietly
    ignores all others, against threads that undo each other's limits. Our lock and count see to
    that. Released afterwards too, for whoever uses threadpoolctl beside us.
    """
    if hasattr(pool, "clear_controlling_thread"):
        pool.clear_controlling_thread(force=True)


_blas_hold = _BlasHold()


def hold_blas() -> AbstractContextManager[None]:
    """SciPy's BLAS at one thread inside of `with`, which may be entered again and again."""
    return _blas_hold


def blas_libraries() -> str:
    """Names and versions of the BLAS libraries that SciPy calls, for show_config."""
    return _blas_hold.description() or "SciPy's (unknown to threadpoolctl)"


_forked = False


def _after_fork_in_child() -> None:
    # libgomp's pool does not survive a fork: a child that enters a region would wait for threads
    # that are not there. It takes the path without OpenMP for the rest of its life.
    global _forked
    _forked = True
    _blas_hold.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_blas_hold.before_fork,
        after_in_parent=_blas_hold.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


_busy_until = 0.0  # by perf_counter: AWAKE after the end of the last call of some size


def team(work: float, *, blas: bool) -> AbstractContextManager[int]:
    """The number of threads for a call of `work` floating-point operations, as what `with` gives.

    If the call uses BLAS, the pool is held at one thread meanwhile, and only the work counts: there
    the number of threads may show in the bits, and a clock must not. Without BLAS a call that
    follows another one closely finds the threads awake, or pays once for those that come after it.
    """
    alone = work < LEAST_WORK or _forked or not _core.OPENMP
    if blas:
        return _team_that_holds_blas(1 if alone or work < ASLEEP * LEAST_WORK else _members(work))
    if alone:
        return _ALONE
    awake = perf_counter() < _busy_until
    return _Team(_members(work) if awake or work >= ASLEEP * LEAST_WORK else 1)


def _members(work: float) -> int:
    """Threads of a team: each has enough to do."""
    most = min(_num_threads, _limit.most)
    return int(min(most, 2 * work / LEAST_WORK)) if LEAST_WORK else most


_ALONE = nullcontext(1)


class _Team:
    """Gives the number of threads, and notes when their work has ended."""

    __slots__ = ("_members",)

    def __init__(self, members: int) -> None:
        self._members = members

    def __enter__(self) -> int:
        return self._members

    def __exit__(self, *exception: object) -> None:
        global _busy_until
        _busy_until = perf_counter() + AWAKE


@contextmanager
def _team_that_holds_blas(members: int) -> Iterator[int]:
    with _blas_hold:
        yield members if _blas_hold.possible else 1

"""Processes made from one that has used threads: fork, a fork during a call, and pools.

Each test runs a script in a process of its own, so that a child that hangs hangs nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastlstm import _core
from tests.processes import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# What all scripts begin with: a step of training with enough work for two threads, twice over.
COMMON = """
import multiprocessing, os, sys, threading, time, warnings
import numpy as np
from fastlstm import LSTM, get_num_threads, set_num_threads
from fastlstm.threads import LEAST_WORK, _blas_hold

warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads, from Python 3.12 on
set_num_threads(2)
STEPS, BATCH, HIDDEN = (int(word) for word in os.environ["FASTLSTM_TEST_SIZES"].split())
LSTM_UNDER_TEST = LSTM(32, HIDDEN, 2, bidirectional=True, dtype=np.float64, rng=0)
X = np.random.default_rng(0).standard_normal((STEPS, BATCH, 32))
assert 8 * STEPS * BATCH * HIDDEN * (32 + HIDDEN) > 4 * LEAST_WORK

def step(_=None):
    output, state, tape = LSTM_UNDER_TEST.forward(X)
    d_x, d_state, grads = LSTM_UNDER_TEST.backward(tape, output, state)
    return [output, *state, d_x, *d_state, *grads.values()]

def same(actual, expected):
    return len(actual) == len(expected) and all(
        np.abs(a - e).max() <= 1e-12 * np.abs(e).max() for a, e in zip(actual, expected)
    )

def wait_for(child):
    "The exit status of a child, which has 20 seconds."
    for _ in range(2000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise SystemExit("the child hangs")
"""

AFTER_USE = """
expected = step()
if child := os.fork():
    assert wait_for(child) == 0, "the child's results are wrong"
    assert same(step(), expected), "the parent's results are wrong afterwards"
    print("fine")
else:
    os._exit(0 if same(step(), expected) and same(step(), expected) else 3)
"""

BEFORE_USE = """
if child := os.fork():
    assert wait_for(child) == 0
    step()
    print("fine")
else:
    results = step()
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if same(step(), results) else 3)
    os._exit(wait_for(grandchild))
"""

# Another thread is inside of the core, or holds the lock, at the moment of the fork.
DURING_A_CALL = """
expected = step()
pools = _blas_hold._find_pools()
counts = [pool.get_num_threads() for pool in pools]
stop = threading.Event()
def work():
    while not stop.is_set():
        step()
workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for worker in workers:
    worker.start()
for _ in range(8):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        fine = same(step(), expected)
        restored = counts == [pool.get_num_threads() for pool in pools]
        os._exit(0 if fine and restored else 3 if restored else 4)
    status = wait_for(child)
    assert status == 0, f"the child ended with {status}"
stop.set()
for worker in workers:
    worker.join()
assert counts == [pool.get_num_threads() for pool in pools]
print("fine")
"""

POOL = """
if __name__ == "__main__":
    expected = step()
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        for results in pool.map_async(step, range(4)).get(timeout=50):
            assert same(results, expected)
    assert same(step(), expected)
    print("fine")
"""

# What stands in the file is not run again by a child that only imports it.
FORKED_THREADS = """
step()
if child := os.fork():
    assert wait_for(child) == 0
    print("fine")
else:
    before = step()
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(same(step(), before)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0 if outcomes == [True] * 4 else 3)
"""


# Steps, batch and units: threads share out the sequences, or, of a small batch, the units.
BY_SEQUENCES, BY_UNITS = "40 120 48", "200 5 100"
both_ways = pytest.mark.parametrize("sizes", [BY_SEQUENCES, BY_UNITS], ids=["sequences", "units"])


def run_script(folder: Path, text: str, *arguments: str, sizes: str = BY_SEQUENCES) -> None:
    """Run a script from a file: a spawned child imports it."""
    script = folder / "script.py"
    script.write_text(COMMON + text)
    environment = {"FASTLSTM_TEST_SIZES": sizes, "FASTLSTM_ISA": _core.ISA}
    printed = run_python(str(script), *arguments, environment=environment, timeout=120)
    assert printed.strip() == "fine"


@both_ways
def test_a_child_of_a_process_that_used_threads_computes_the_same(
    sizes: str, tmp_path: Path
) -> None:
    run_script(tmp_path, AFTER_USE, sizes=sizes)


def test_a_child_and_its_child_of_a_process_that_used_none_compute_the_same(tmp_path: Path) -> None:
    run_script(tmp_path, BEFORE_USE)


@both_ways
def test_a_child_born_during_a_call_of_another_thread_computes_the_same(
    sizes: str, tmp_path: Path
) -> None:
    run_script(tmp_path, DURING_A_CALL, sizes=sizes)


@both_ways
def test_threads_of_a_child_compute_the_same(sizes: str, tmp_path: Path) -> None:
    run_script(tmp_path, FORKED_THREADS, sizes=sizes)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_of_a_pool_compute_the_same(method: str, tmp_path: Path) -> None:
    run_script(tmp_path, POOL, method)

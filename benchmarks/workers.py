"""Engines in processes of their own, which answer one request at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from benchmarks.engines import ENGINES
from benchmarks.tasks import Task


class Worker:
    """An engine in a process of its own, which answers one request at a time."""

    def __init__(self, engine: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.engine = engine
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(engine, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, request: Task | float) -> Any:
        try:
            self._connection.send(request)
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise SystemExit(
                f"peers.py: the process of {self.engine} ended with {self._process.exitcode}"
            ) from None

    def stop(self) -> None:
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join()


@contextmanager
def thread_pools(threads: int) -> Iterator[None]:
    """Processes that are started within have `threads` threads wherever a library asks for it."""
    # NPROC is what XLA sizes its pool by.
    with mock.patch.dict(os.environ, OMP_NUM_THREADS=str(threads), NPROC=str(threads)):
        yield


@contextmanager
def workers(engines: list[str], threads: int) -> Iterator[list[Worker]]:
    """Start the engines' processes, with every thread pool in them at `threads`."""
    started: list[Worker] = []
    try:
        with thread_pools(threads):
            for engine in engines:
                started.append(Worker(engine))  # noqa: PERF401, those started are stopped below
        yield started
    finally:
        for worker in started:
            worker.stop()


def serve(engine: str, connection: Connection) -> None:
    """A worker's life: a Task is answered with its results, a number of seconds with a time."""
    job = None
    while (request := connection.recv()) is not None:
        if isinstance(request, Task):
            job = ENGINES[engine].job(request)
            connection.send(job.compute())
        else:
            assert job is not None
            connection.send(job.time(request))

"""Run a function on many inputs, each in a fresh process that costs nothing to start.

Python's fork server imports JAX and what the claims need once; every process is a fork of it. A process that hangs or
dies is an outcome like any other.
"""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

PRELOADED = ["jax", "flax.linen", "optax", "numpy", "pytest", "hypothesis", "mnist_fp8.te"]
"""Imported once. None of them imports Transformer Engine or starts a JAX backend."""

Task = TypeVar("Task")


@dataclasses.dataclass(frozen=True)
class Ended(Generic[Task]):
    """A task that has ended.

    Attributes:
        task: the input.
        result: what the function returned; ``None`` if it did not return.
        failure: why it did not return: what it raised, how the process died, or that it was stopped; empty if it did.
        seconds: how long it ran.
    """

    task: Task
    result: Any
    failure: str
    seconds: float


@dataclasses.dataclass
class _Running(Generic[Task]):
    task: Task
    process: BaseProcess
    connection: Connection
    started: float
    processors: set[int]


def run(function: Callable[[Task], Any], tasks: Iterable[Task], *, jobs: int, timeout: float) -> Iterator[Ended[Task]]:
    """Run ``function`` on each task, and yield the tasks as they end.

    Args:
        function: a module's function; its result has to be picklable.
        tasks: inputs, picklable; taken one by one as processes become free.
        jobs: processes at a time.
        timeout: seconds after which a process is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, running = iter(tasks), list[_Running[Task]]()
    free = _shares(jobs)
    try:
        while True:
            for task in _take(waiting, jobs - len(running)):
                running.append(_start(context, function, task, free.pop()))
            if not running:
                return
            wait([each.connection for each in running], timeout=1)
            for each in list(running):
                ended = _end(each, timeout)
                if ended is not None:
                    running.remove(each)
                    free.append(each.processors)
                    yield ended
    finally:
        for each in running:
            each.process.kill()


def _shares(jobs: int) -> list[set[int]]:
    """The processors of each process: one where there are enough processes, since XLA starts a thread for each."""
    processors = sorted(os.sched_getaffinity(0))
    if jobs < len(processors):
        return [set(processors)] * jobs
    return [{processors[number % len(processors)]} for number in range(jobs)]


def _take(tasks: Iterator[Task], count: int) -> list[Task]:
    return [task for _, task in zip(range(count), tasks, strict=False)]


def _start(context: Any, function: Callable[[Task], Any], task: Task, processors: set[int]) -> _Running[Task]:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, task, processors))
    process.start()
    sender.close()
    return _Running(task, process, receiver, time.monotonic(), processors)


def _work(sender: Connection, function: Callable[[Task], Any], task: Task, processors: set[int]) -> None:
    """What runs in the new process. Its output goes nowhere: results travel through the pipe."""
    os.sched_setaffinity(0, processors)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        sender.send((function(task), ""))
    except BaseException as error:
        sender.send((None, f"{type(error).__name__}: {error}"))
    sender.close()
    os._exit(0)  # leave without JAX's clean-up


def _end(each: _Running[Task], timeout: float) -> Ended[Task] | None:
    seconds = time.monotonic() - each.started
    result, failure = None, ""
    if each.connection.poll():
        try:
            result, failure = each.connection.recv()
        except EOFError:
            each.process.join()
            failure = f"the process ended with exit code {each.process.exitcode}"
    elif seconds > timeout:
        failure = f"no end after {timeout:.0f} s"
    else:
        return None
    each.process.kill()
    each.process.join()
    each.connection.close()
    return Ended(each.task, result, failure, seconds)

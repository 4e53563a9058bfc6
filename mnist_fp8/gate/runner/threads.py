"""Several runs at the same time, all of which end at Ctrl-C."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mnist_fp8.gate.releases import processes

T = TypeVar("T")


class InterruptedRunsError(KeyboardInterrupt):
    """Ctrl-C; ``done`` has what was done until then."""

    def __init__(self, done: list[Any]) -> None:
        super().__init__()
        self.done = done


def run_all(works: Sequence[Callable[[], T]], jobs: int) -> list[T]:
    """Do some work, several pieces at a time.

    Args:
        works: in the order of the answer.
        jobs: how many at a time.

    Raises:
        InterruptedRunsError: Ctrl-C; all processes have ended.
    """
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures: list[concurrent.futures.Future[T]] = []
        try:
            for work in works:  # Ctrl-C may come while these are started
                futures.append(pool.submit(work))  # noqa: PERF401
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop_all()
            pool.shutdown()
            ended = [future for future in futures if not future.cancelled() and future.exception() is None]
            raise InterruptedRunsError([future.result() for future in ended]) from None

"""Several pieces of work at the same time, each of which runs processes of its own."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mnist_fp8.gate.releases import processes

T = TypeVar("T")


class InterruptedWorkError(KeyboardInterrupt, Generic[T]):
    """Ctrl-C; what was done until then is kept."""

    def __init__(self, done: list[T]) -> None:
        super().__init__()
        self.done = done


def all_of(pieces: Sequence[Callable[[], T]], jobs: int) -> list[T]:
    """Do them, several at a time.

    Args:
        pieces: in the order of the answer.
        jobs: how many at a time.

    Raises:
        InterruptedWorkError: Ctrl-C; all processes have ended.
        Exception: what the first piece raises that fails; the others have ended.
    """
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures: list[concurrent.futures.Future[T]] = []
        try:
            for piece in pieces:  # Ctrl-C may come while these are started
                futures.append(pool.submit(piece))  # noqa: PERF401
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop_all()
            pool.shutdown()
            ended = [future for future in futures if not future.cancelled() and future.exception() is None]
            raise InterruptedWorkError([future.result() for future in ended]) from None

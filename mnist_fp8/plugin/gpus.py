"""GPUs: every worker computes on one of its own."""

import os
from collections.abc import Mapping
from typing import Any


def put_own_first(workerinput: Mapping[str, Any]) -> None:
    """Have a worker compute on a GPU of its own; it sees all of them, since some tests need two.

    Args:
        workerinput: what pytest-xdist told the worker; without ``gpus``, nothing changes.
    """
    if workerinput.get("gpus"):
        worker = int(workerinput["workerid"].removeprefix("gw"))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = rotated(visible, workerinput["gpus"], worker)


def rotated(visible: str | None, count: int, worker: int) -> str:
    """The value of ``CUDA_VISIBLE_DEVICES`` with which a worker's own GPU is the first.

    Args:
        visible: the value so far; its entries can be names, too.
        count: GPUs that CUDA sees with that. It takes entries up to the first that is none.
        worker: number of the worker, from 0.
    """
    gpus = list(map(str, range(count))) if visible is None else visible.split(",")[:count]
    own = worker % count
    return ",".join(gpus[own:] + gpus[:own])

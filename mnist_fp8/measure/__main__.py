"""Print what was measured, and of what, as one JSON object: ``python -m mnist_fp8.measure [KEY ...]``."""

import json
import os
import sys
import time

from mnist_fp8 import environment, te_api
from mnist_fp8.measure import measure, training
from mnist_fp8.measurements import entries_to_json

REPEATABLE = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
"""XLA's flags on a GPU. Without them it times algorithms anew in each process, and training takes another path."""


def main() -> None:
    """Measure what the arguments name, all if there is none."""
    begin = time.monotonic()
    if not te_api.why_no_gpu():  # before JAX starts; what the user has set comes last and wins
        os.environ["XLA_FLAGS"] = f"{REPEATABLE} {os.environ.get('XLA_FLAGS', '')}".strip()
    try:
        entries = measure(sys.argv[1:])
    except te_api.TeUnavailableError as error:
        sys.exit(f"nothing can be measured: {error}")
    document = {
        "run": te_api.engine().kind.value,
        "environment": environment.describe() | training.describe_data(),
        "entries": entries_to_json(entries),
        "seconds": time.monotonic() - begin,
    }
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

"""Print what was measured, and of what, as one JSON object: ``python -m mnist_fp8.measure [KEY ...]``."""

import json
import sys
import time

from mnist_fp8 import environment, te_api, xla_flags
from mnist_fp8.measure import measure, training
from mnist_fp8.measurements import entries_to_json


def main() -> None:
    """Measure what the arguments name, all if there is none."""
    begin = time.monotonic()
    if not te_api.why_no_gpu():
        xla_flags.put_first(*xla_flags.REPEATABLE)
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

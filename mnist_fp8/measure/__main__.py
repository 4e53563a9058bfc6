"""Print what was measured, and of what, as one JSON object: ``python -m mnist_fp8.measure [KEY ...]``."""

import json
import sys
import time

from mnist_fp8 import te
from mnist_fp8.core import xla_flags
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.xla_flags import REPEATABLE
from mnist_fp8.measure import measure, training
from mnist_fp8.record.entries import entries_to_json
from mnist_fp8.te import provenance


def main() -> None:
    """Measure what the arguments name, all if there is none."""
    begin = time.monotonic()
    if not te.why_no_gpu():
        xla_flags.put_first(*REPEATABLE)
    try:
        entries = measure(sys.argv[1:])
    except TeUnavailableError as error:
        sys.exit(f"nothing can be measured: {error}")
    document = {
        "run": te.engine().kind.value,
        "environment": provenance.describe() | training.describe_data(),
        "entries": entries_to_json(entries),
        "seconds": time.monotonic() - begin,
    }
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

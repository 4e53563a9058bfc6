"""Write what was measured, and of what, as one JSON object: ``python -m mnist_fp8.measure FILE [KEY ...]``."""

import sys

from mnist_fp8.measure import measure, training
from mnist_fp8.measure.document import write_measured


def main() -> None:
    """Measure what the arguments name, all if there is none, and write it to the file that comes first."""
    file, *keys = sys.argv[1:]
    write_measured(file, lambda: measure(keys), training.describe_data)


if __name__ == "__main__":
    main()

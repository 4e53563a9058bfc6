"""What a process measured, and of what, as one JSON object in a file.

Not on standard output: whatever is imported may print there.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mnist_fp8 import te
from mnist_fp8.core import xla_flags
from mnist_fp8.core.errors import ConfigError, TeUnavailableError
from mnist_fp8.core.files import replace_file
from mnist_fp8.core.xla_flags import REPEATABLE
from mnist_fp8.record.entries import Value
from mnist_fp8.record.entries_json import entries_to_json
from mnist_fp8.te import provenance


def write_measured(
    file: str, measured: Callable[[], Mapping[str, Value]], facts: Callable[[], Mapping[str, str]] = dict
) -> None:
    """Measure, and write it.

    Args:
        file: where to.
        measured: gives the entries.
        facts: gives what else is to be said of what was measured.
    """
    begin = time.monotonic()
    if not te.why_no_gpu():
        xla_flags.put_first(*REPEATABLE)
    try:
        entries = measured()
    except TeUnavailableError as error:
        _write(file, {"problem": str(error)})
        sys.exit(f"nothing can be measured: {error}")
    except ConfigError as error:  # what was asked of the run, and not what Transformer Engine does
        sys.exit(f"nothing can be measured: {error}")
    document = {
        "run": te.engine().kind.value,
        "environment": {**provenance.describe(), **facts()},
        "imported": provenance.origins(),
        "entries": entries_to_json(entries),
        "seconds": time.monotonic() - begin,
    }
    _write(file, document)


def _write(file: str, document: Mapping[str, Any]) -> None:
    replace_file(Path(file), json.dumps(document, indent=1, allow_nan=False).encode())

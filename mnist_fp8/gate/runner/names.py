"""The names of an installation, from its source: no process is needed for that, and no code of Transformer Engine runs.

They are kept for what reads them, and apart from what was measured: they do not rest on it, nor it on them.
"""

import dataclasses
from collections.abc import Sequence

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import cache_dir, digest_of
from mnist_fp8.gate.names import reading
from mnist_fp8.gate.names.public_api import public_api
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner.store import keep_record, kept, unexamined
from mnist_fp8.record.entries import Failure, Value
from mnist_fp8.record.keys import covered
from mnist_fp8.record.names import Names
from mnist_fp8.record.record import Record


def asks_for_names(keys: Sequence[str]) -> bool:
    """Whether some keys are those of names, or of what a user's code uses of them."""
    return any(key.partition("/")[0].partition("*")[0] in ("", "api", "uses") for key in keys)


def with_names(record: Record, environment: Environment, keys: Sequence[str], *, rerun: bool) -> Record:
    """A record with all names, and with entries of the public ones that are asked for.

    Where nothing could be measured there are names, too, but no entries: what a user's code uses can be judged, and
    what else differs has one reason.

    Args:
        record: what was measured.
        environment: where the installation is.
        keys: keys of what is asked for, or patterns.
        rerun: read again what was read before.

    Raises:
        EnvError: the names cannot be kept, or what they were read from was edited meanwhile.
    """
    names: Names | None = None
    entries: dict[str, Value]
    try:
        names = _names_of(environment, rerun=rerun)
        entries = covered({f"api/{name}": signature for name, signature in public_api(names).items()}, keys)
    except ConfigError as error:
        entries = {"api/source": Failure(type(error).__name__, str(error))}
    if record.problem:
        entries = {}
    return dataclasses.replace(record, names=names, entries={**record.entries, **entries})


def _names_of(environment: Environment, *, rerun: bool) -> Names:
    file = cache_dir() / "names" / f"{digest_of([environment.digest, reading.digest()])[:16]}.json"
    found = None if rerun else kept(file)
    if found and found.names:
        return found.names
    names = reading.read_names(environment.package)
    environment.check_unedited()
    keep_record(file, dataclasses.replace(unexamined(environment), names=names))
    return names

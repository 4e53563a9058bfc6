"""A user's code over all known releases as Markdown, HTML and JSON."""

import dataclasses
import json
from collections.abc import Iterator

from mnist_fp8 import __version__
from mnist_fp8.core.plain import plain
from mnist_fp8.gate.reports.markup import apart, bullets, counted, row, template, words
from mnist_fp8.gate.reports.uses.files import block_text, marked, plain_fate, plain_scan, plain_unread
from mnist_fp8.gate.reports.uses.releases import COLUMNS, ReleasesView
from mnist_fp8.gate.reports.uses.view import fates
from mnist_fp8.gate.reports.uses.words import is_source, looked_at
from mnist_fp8.gate.uses.by_name import UsedName

SCHEMA_VERSION = 1
"""Of the JSON; raised when a field changes its meaning."""
TITLE = "Your code and the releases of Transformer Engine"


def forms(view: ReleasesView) -> dict[str, str]:
    """All forms, by the names of their files."""
    return {"uses.md": markdown(view), "uses.html": html(view), "uses.json": as_json(view)}


def markdown(view: ReleasesView) -> str:
    """The page as Markdown."""
    return "\n\n".join(filter(None, _parts(view))) + "\n"


def _parts(view: ReleasesView) -> Iterator[str]:
    yield f"# {TITLE}"
    yield f"**{words(view.headline)}** {marked(view.range)}"
    if view.used.names:
        cells = (map(words, view.cells(name)) for name in view.used.names)
        yield "\n".join(row(list(each)) for each in (COLUMNS, ["---"] * len(COLUMNS), *cells))
    yield bullets(map(words, view.private))
    for title, found in view.sections:
        yield f"## {title}"
        yield bullets(map(block_text, found))
    yield f"<sub>{words(looked_at(view.uses))}</sub>"
    yield bullets(f"Not looked at: {words(each)}" for each in view.not_looked_at)
    yield f"<sub>mnist-fp8 {__version__}</sub>"


def html(view: ReleasesView) -> str:
    """The page as one HTML file that needs nothing else."""
    return template("uses.html").render(
        view=view,
        title=TITLE,
        states={name.path: [_state(name, release) for release in view.releases] for name in view.used.names},
        looked_at=looked_at(view.uses),
        counted=counted,
        apart=apart,
        is_source=is_source,
        version=__version__,
    )


def _state(name: UsedName, release: str) -> str:
    """What a release is to a name: one of the classes of the page's cells."""
    if release not in name.there:
        return "absent"
    if release not in name.fits:
        return "fails"
    return "changed" if release in name.changed else "fits"


def as_json(view: ReleasesView) -> str:
    """Everything, for programs."""
    used, uses = view.used, view.uses
    changes = [
        {"release": release, **plain_fate(fate)}
        for release, found in view.changes()
        for block in found
        for fate in block.fates
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "means": view.headline,
        **plain_scan(uses),
        "releases": used.fitting.releases,
        "fits": used.fitting.fits,
        "not_certain": used.fitting.unknown,
        "ranges": used.fitting.ranges,
        "names": [dataclasses.asdict(name) for name in used.names],
        "changes": changes,
        "misfits": [plain_fate(fate) for fate in fates(used.misfits)],
        "unread": [plain_unread(each) for each in uses.unread],
    }
    return json.dumps(plain(document), indent=1, allow_nan=False) + "\n"

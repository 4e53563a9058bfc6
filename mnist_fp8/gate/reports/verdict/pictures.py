"""Pictures of two records of Transformer Engine on top of each other, as small SVG that fits into a page."""

import dataclasses
import functools
import io
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mnist_fp8.record.entries import Curves, Numbers
from mnist_fp8.record.record import Record

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


OLD_COLOUR, NEW_COLOUR = "#d97706", "#3b82f6"
"""Orange and blue: told apart by every eye, on light ground and on dark."""
_INK = "#010203"
"""Stands for the colour of the page's text, which is another in dark mode."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, crisp, and found by a search
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "grid.color": _INK,
    "legend.frameon": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_NAME = 24
"""Characters of a Transformer Engine's name in a legend."""
_ROW = 0.17
"""Inches between two cases, one above the other."""
_WIDE, _THIN = ({"linewidth": 4.5, "alpha": 0.45}, {"linewidth": 1.2})
"""Old lines are wide and pale and new ones lie thin on them: both are seen where they are the same."""
_DOTTED = "scale stored"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of two records.

    Attributes:
        title: what a reader should see in it.
        svg: an ``svg`` element to stand in a page, whose font and colour of text it takes.
        keys: of the entries that it shows.
    """

    title: str
    svg: str
    keys: tuple[str, ...]


_V = TypeVar("_V", bound=Numbers | Curves)


@dataclasses.dataclass(frozen=True)
class _Pair(Generic[_V]):
    """The same entry of both records; ``None`` where one of them lacks it."""

    key: str
    name: str
    old: _V | None
    new: _V | None

    @property
    def identical(self) -> bool:
        old, new = (value and dataclasses.replace(value, noise=0.0) for value in (self.old, self.new))
        return repr(old) == repr(new)  # NaN is as it was

    @property
    def sides(self) -> Iterator[tuple[_V, bool]]:
        """What is there, and whether it is new."""
        yield from ((value, new) for value, new in ((self.old, False), (self.new, True)) if value)


@dataclasses.dataclass(frozen=True)
class _Kind(Generic[_V]):
    """A kind of panel.

    Attributes:
        area: of the entries that it shows.
        value: their class.
        part: the panel of an entry, by the entry's name, and what the entry is called there; empty if it is in none.
        differs: how an old and a new value differ, in words.
        draw: draws the entries of one panel.
    """

    area: str
    value: type[_V]
    part: Callable[[str], tuple[str, str]]
    differs: Callable[[_V, _V], str]
    draw: "Callable[[Sequence[_Pair[_V]], Figure], None]"


def training_curves(old: Record, new: Record) -> list[Panel]:
    """The loss of each mode by step: the mean of the seeds, in a band from the lowest to the highest."""

    def part(name: str) -> tuple[str, str]:
        return ("loss", "") if name == "loss" else ("", "")

    return _panels(_Kind("training", Curves, part, _ends, _draw_curves), old, new)


def trajectories(old: Record, new: Record) -> list[Panel]:
    """Scales and the newest amax of each tensor, step by step, for each algorithm."""

    def part(name: str) -> tuple[str, str]:
        tensor, _, what = name.partition(" ")
        return (tensor, what) if what in {"scale used", "scale stored", "newest amax stored"} else ("", "")

    return _panels(_Kind("metadata", Numbers, part, _first_step, _draw_trajectories), old, new)


def error_distributions(old: Record, new: Record) -> list[Panel]:
    """How often errors are how large, for each mode."""

    def part(name: str) -> tuple[str, str]:
        what = name.removeprefix("distribution of ")
        return ("how large errors are", what) if what != name else ("", "")

    return _panels(_Kind("numerics", Numbers, part, _moved, _draw_distributions), old, new)


def errors_by_case(old: Record, new: Record) -> list[Panel]:
    """The error of each shape and range of values, for each mode and quantity."""

    def part(name: str) -> tuple[str, str]:
        what = name.removesuffix(" against float64")
        return (f"error of {what}", "") if what != name else ("", "")

    return _panels(_Kind("numerics", Numbers, part, _grown, _draw_cases), old, new)


def _panels(kind: _Kind[_V], old: Record, new: Record) -> list[Panel]:
    sides = (f"old: TE {_short(old.name)}", f"new: TE {_short(new.name)}")
    found = []
    for name, pairs in _groups(kind, old, new).items():
        svg = _svg(name, sides, functools.partial(kind.draw, pairs))
        found.append(Panel(f"{name}: {_told(kind, pairs)}", svg, tuple(pair.key for pair in pairs)))
    return found


def _short(te: str) -> str:
    """The end of a long path."""
    return te if len(te) <= _NAME else f"…{te[1 - _NAME :]}"


def _groups(kind: _Kind[_V], old: Record, new: Record) -> dict[str, list[_Pair[_V]]]:
    """What is drawn together, by the name of the panel."""
    found: dict[str, list[_Pair[_V]]] = {}
    for key in dict.fromkeys([*old.entries, *new.entries]):
        area, subject, name = (*key.split("/", 2), "", "")[:3]
        values = (old.entries.get(key), new.entries.get(key))
        a, b = (value if isinstance(value, kind.value) else None for value in values)
        panel, label = kind.part(name)
        if area == kind.area and panel and (a or b):
            found.setdefault(f"{subject}, {panel}", []).append(_Pair(key, label, a, b))
    return found


def _told(kind: _Kind[_V], pairs: Sequence[_Pair[_V]]) -> str:
    """Whether old and new are the same, and where not, how they differ."""
    different = [pair for pair in pairs if not pair.identical]
    if not different:
        return "identical"
    for value, only in (("old", "only in the new one"), ("new", "only in the old one")):
        if all(getattr(pair, value) is None for pair in pairs):
            return only
    said = [f"{pair.name} {_differs(kind, pair)}".strip() for pair in different]
    return "; ".join([*said, "the rest identical"] if len(different) < len(pairs) else said)


def _differs(kind: _Kind[_V], pair: _Pair[_V]) -> str:
    if pair.old and pair.new:
        return kind.differs(pair.old, pair.new)
    return "only in the old one" if pair.old else "only in the new one"


def _ends(old: Curves, new: Curves) -> str:
    before, after = (statistics.fmean(seed[-1] for seed in curves.seeds) for curves in (old, new))
    return f"ends at {after:.4g}, before at {before:.4g}"


def _first_step(old: Numbers, new: Numbers) -> str:
    steps = [label for label, a, b in _both(old, new) if repr(a) != repr(b)]  # NaN is as it was
    return f"differs at {len(steps)} of {len(old.values)} steps, first at {steps[0]}" if steps else "has other steps"


def _moved(old: Numbers, new: Numbers) -> str:
    return f"moved, {sum(abs(b - a) for _, a, b in _both(old, new)) / 2:.1%} of them"


def _grown(old: Numbers, new: Numbers) -> str:
    ratios = [b / a for _, a, b in _both(old, new) if a]
    return f"{min(ratios):.3g} to {max(ratios):.3g} times the old one" if ratios else "differs"


def _both(old: Numbers, new: Numbers) -> Iterator[tuple[str, float, float]]:
    """Label, old and new value; what one side lacks is 0 there."""
    before, after = old.by_label, new.by_label
    for label in {**before, **after}:
        yield label, before.get(label, 0.0), after.get(label, 0.0)


def _svg(name: str, sides: tuple[str, str], draw: "Callable[[Figure], None]") -> str:
    """The picture of two records, with a legend that names them; the same to the last character for the same records.

    Args:
        name: another one for each picture of a page.
        sides: names of both records.
        draw: draws on the empty figure.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    out = io.StringIO()
    # The ids of a page's pictures must not clash: each picture has a salt of its own.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        # As wide as a telephone, so that the text can be read there.
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        draw(figure)
        handles = [
            Line2D([], [], label=label, **_style(new=new)) for label, new in zip(sides, (False, True), strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata)
    return _lean(out.getvalue())


def _lean(svg: str) -> str:
    """Without what a page has no use for, and in the page's own font and colour of text."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'font-family: [^;"]*;? ?', "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).replace(_INK, "currentColor").strip()


def _style(*, new: bool) -> dict[str, Any]:
    return {"color": NEW_COLOUR, **_THIN} if new else {"color": OLD_COLOUR, **_WIDE}


def _powers_of_two(axis: "Axis", values: Sequence[float]) -> Callable[[float], float]:
    """Label an axis with powers of two, and with zero if there are zeros; returns where a value stands.

    Matplotlib's own logarithmic axis has no zero, and its labels take most of the time that a picture takes.
    """
    exponents = [math.log2(value) for value in values if value > 0 and math.isfinite(value)] or [0]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    step = max(1, -(-(high - low) // 5))
    ticks = list(range(low, high + 1, step))
    labels = [_superscript(f"2^{tick}") for tick in ticks]
    zero = low - step
    axis.set_ticks(*(([zero, *ticks], ["0", *labels]) if 0 in values else (ticks, labels)))

    def position(value: float) -> float:
        if value == 0:
            return zero
        return math.log2(value) if value > 0 and math.isfinite(value) else math.nan

    return position


def _draw_curves(pairs: Sequence[_Pair[Curves]], figure: "Figure") -> None:
    axes = figure.subplots()
    for curves, new in pairs[0].sides:
        by_step = list(zip(*curves.seeds, strict=True))
        style = _style(new=new)
        lowest, highest = ([limit(each) for each in by_step] for limit in (min, max))
        axes.fill_between(curves.steps, lowest, highest, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(curves.steps, [statistics.fmean(each) for each in by_step], **style)
    axes.set(xlabel="step", ylabel="loss")


def _draw_trajectories(pairs: Sequence[_Pair[Numbers]], figure: "Figure") -> None:
    """Scales above, amax below: they are far apart."""
    rows = {
        what: [pair for pair in pairs if what in pair.name]
        for what in ("scale", "amax")
        if any(what in pair.name for pair in pairs)
    }
    figure.set_figheight(0.6 + 1.4 * len(rows))
    every_axes = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    for row, axes in zip(rows.values(), every_axes, strict=True):
        position = _powers_of_two(
            axes.yaxis, [each for pair in row for value, _ in pair.sides for each in value.values]
        )
        for pair in row:
            for numbers, new in pair.sides:
                style = _style(new=new) | ({"linestyle": ":"} if pair.name == _DOTTED else {})
                marker = {"marker": ".", "markersize": 3} if new else {"marker": "o", "markersize": 6}
                axes.plot(range(len(numbers.values)), list(map(position, numbers.values)), **style, **marker)
        axes.set_title(", ".join(f"{pair.name}{' (dotted)' if pair.name == _DOTTED else ''}" for pair in row))
    every_axes[-1].set_xlabel("step")
    every_axes[-1].xaxis.get_major_locator().set_params(integer=True)


def _draw_distributions(pairs: Sequence[_Pair[Numbers]], figure: "Figure") -> None:
    figure.set_figheight(0.7 + 1.1 * len(pairs))
    every_axes = figure.subplots(len(pairs), sharex=True, squeeze=False)[:, 0]
    labels = list(dict.fromkeys(label for pair in pairs for value, _ in pair.sides for label in value.labels))
    for pair, axes in zip(pairs, every_axes, strict=True):
        for numbers, new in pair.sides:
            fractions = numbers.by_label
            filled = {} if new else {"fill": True, "linewidth": 0}
            heights = [fractions.get(label, 0.0) for label in labels]
            axes.stairs(heights, range(len(labels) + 1), **_style(new=new) | filled)
        axes.set(title=pair.name, ylabel="fraction")
    ticks = range(0, len(labels), max(1, len(labels) // 8))
    every_axes[-1].set_xticks(ticks, [_superscript(labels[tick]) for tick in ticks])
    every_axes[-1].set_xlabel("relative error")


def _superscript(label: str) -> str:
    base, _, exponent = label.partition("^")
    return base + exponent.translate(_SUPERSCRIPTS)


def _draw_cases(pairs: Sequence[_Pair[Numbers]], figure: "Figure") -> None:
    axes = figure.subplots()
    labels = list(dict.fromkeys(label for value, _ in pairs[0].sides for label in value.labels))
    figure.set_figheight(0.7 + _ROW * len(labels))
    position = _powers_of_two(axes.xaxis, [each for value, _ in pairs[0].sides for each in value.values])
    for numbers, new in pairs[0].sides:
        rows = [labels.index(label) for label in numbers.labels]
        marker = {"marker": "."} if new else {"marker": "o", "markersize": 8}
        axes.plot(list(map(position, numbers.values)), rows, **_style(new=new) | marker | {"linestyle": "none"})
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()

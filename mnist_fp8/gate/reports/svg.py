"""Figures as small SVG that fits into a page."""

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


INK = "#010203"
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
    "grid.color": INK,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_WIDTH = 4.6
"""Inches. As wide as a telephone, so that the text can be read there."""


def svg(name: str, draw: "Callable[[Figure], None]", *, width: float = _WIDTH) -> str:
    """An ``svg`` element to stand in a page, the same to the last character whenever the same is drawn.

    Args:
        name: another one for each picture of a page.
        draw: draws on the empty figure.
        width: inches.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    out = io.StringIO()
    # The ids of a page's pictures must not clash: each picture has a salt of its own.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, 2.6), layout="constrained")
        draw(figure)
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
    return re.sub(r"\s*\n\s*", "\n", svg).replace(INK, "currentColor").strip()

"""What a user gets to see of their own code over all releases."""

import io
import json
import re
from collections.abc import Callable
from html import unescape

import pytest
from rich.console import Console

from mnist_fp8.gate.reports.uses import pages
from mnist_fp8.gate.reports.uses.releases import ReleasesView, table
from mnist_fp8.gate.uses.by_name import used_names
from mnist_fp8.gate.uses.use import Place, Unread, Use, Uses
from support.own_code import HISTORY, JAX, of_api
from support.reports import CLEAN, NASTY, lacks, rendered


def view(*uses: Use, unread: tuple[Unread, ...] = ()) -> ReleasesView:
    return ReleasesView(Uses(uses, unread, 12, 340, paths=("src",)), used_names(uses, HISTORY))


def printed(shown: ReleasesView, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in table(shown, width):
        console.print(part)
    return out.getvalue()


def of_html(shown: ReleasesView) -> str:
    page = re.sub(r"<style.*?</style>", "", pages.html(shown), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())


def of_markdown(shown: ReleasesView) -> str:
    return unescape(re.sub(r"<[^>]*>", "", rendered(pages.markdown(shown))))


FORMS = {"narrow": printed, "wide": lambda shown: printed(shown, 140), "markdown": of_markdown, "html": of_html}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
CODE = view(
    of_api("dense", 7, "x"),
    of_api("new", 8),
    of_api("cast", 9),
    unread=(Unread(Place("b.py", 3), "why not", may_use=True),),
)


@every_form
def test_names_come_with_their_releases(form: Callable[[ReleasesView], str]) -> None:
    text = form(CODE).replace("`", "")
    assert not lacks(
        text, "Your code uses 3 names of Transformer Engine in 1 file.", "It fits transformer-engine>=2.2,<2.3."
    )
    assert not lacks(
        text, "jax.api.dense", "jax.api.new", "jax.api.cast *", "jax.api.cast is not public: any release may change it"
    )
    assert not lacks(text, ">=2.1,<2.3", ">=2.2")
    assert not lacks(text, "dense now needs y.", "src/a.py:7")
    assert not lacks(text, "Looked at src: 12 files, 340 lines; 1 place not looked at.", "b.py:3: why not")
    if form is not of_html:  # which has a column for each release
        assert not lacks(text, "2.1 on", "2.2 on")


@every_form
def test_what_fits_nowhere_is_told_with_what_to_write(form: Callable[[ReleasesView], str]) -> None:
    text = form(view(of_api("cast", 9, "z"))).replace("`", "")
    assert not lacks(
        text,
        "No known release of Transformer Engine fits all of it.",
        "src/a.py:9",
        "cast(z)",
        "cast does not take z.",
        "Leave out z=.",
    )


@every_form
def test_code_without_transformer_engine_says_so(form: Callable[[ReleasesView], str]) -> None:
    assert not lacks(form(view()), "Your code uses no name of Transformer Engine.")


def test_page_shows_each_release_of_each_name() -> None:
    rows = re.findall(r"<tr><th><code>(.*?)</code></th>(.*?)</tr>", pages.html(CODE), re.DOTALL)
    assert {name: re.findall(r'<td class="(\w+)"', cells) for name, cells in rows} == {
        "jax.api.cast *": ["holds", "holds", "holds"],
        "jax.api.dense": ["holds", "holds", "broken"],
        "jax.api.new": ["absent", "holds", "holds"],
    }


def test_json_has_typed_fields() -> None:
    found = json.loads(pages.as_json(CODE))
    assert found["ranges"] == [">=2.2,<2.3"]
    assert found["fits"] == ["2.2.0"]
    dense = next(each for each in found["names"] if each["path"] == f"{JAX}.api.dense")
    assert dense == {
        "path": f"{JAX}.api.dense",
        "there": [*HISTORY],
        "fits": ["2.1.0", "2.2.0"],
        "changed": ["2.3.0"],
        "public": f"{JAX}.api.dense",
    }
    (change,) = found["changes"]
    assert (change["release"], change["line"], change["causes"][0]["subject"]) == ("2.3.0", 7, "y")


def test_texts_do_nothing_to_a_page_or_a_terminal() -> None:
    place = Place(NASTY, 1, source=NASTY)
    hostile = view(Use(f"{JAX}.{NASTY}", of_api("dense", 1).kind, place), unread=(Unread(place, NASTY, may_use=True),))
    assert "<script>alert" not in pages.html(hostile) + rendered(pages.markdown(hostile))
    assert "\x1b" not in printed(hostile) + pages.html(hostile)
    assert CLEAN in of_html(hostile)


def test_many_are_counted_in_the_terminal() -> None:
    many = view(
        *(of_api("dense", line, "x") for line in range(1, 9)),
        *(of_api(f"n{line}", line) for line in range(40)),
        unread=tuple(Unread(Place(f"{line}.py", 1), "why", may_use=False) for line in range(20)),
    )
    assert "  not looked at: and 15 more" in printed(many)

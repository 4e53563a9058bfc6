"""Which files are read, and what becomes of those that cannot be."""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.gate.uses.use import UseKind, Uses

Write = Callable[[dict[str, str]], Path]
USE = "import transformer_engine.jax as te\n"


def files(uses: Uses, folder: Path) -> list[str]:
    return [Path(use.place.file).relative_to(folder).as_posix() for use in uses.uses]


def notebook(*cells: str | list[str], **metadata: object) -> str:
    code = [{"cell_type": "code", "source": cell} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# te"}, *code], "metadata": metadata})


def test_environments_caches_and_builds_are_left_out(write: Write) -> None:
    left_out = [
        ".git",
        "__pycache__",
        "node_modules",
        "build",
        "dist",
        ".venv",
        "a/.tox",
        "lib.egg-info",
        "env",
        "conda",
    ]
    folder = write({f"{name}/a.py": USE for name in [*left_out, "src", "src/build"]})
    write({"env/pyvenv.cfg": "", "conda/conda-meta/history": "", "src/build/__init__.py": USE})
    write({"transformer_engine/__init__.py": "", "transformer_engine/jax/a.py": USE})
    uses = find_uses([folder])
    assert files(uses, folder) == ["src/a.py", "src/build/__init__.py", "src/build/a.py"]
    assert uses.left_out == len(left_out) + 1


def test_a_folder_that_is_asked_for_is_read_whatever_its_name_is(write: Write) -> None:
    folder = write({"build/a.py": USE})
    assert files(find_uses([folder / "build"]), folder) == ["build/a.py"]


def test_files_are_named_as_the_user_names_them(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write({"src/a.py": USE, "b.py": USE}))
    uses = find_uses([Path("src"), Path("b.py"), Path("./src/a.py")])
    assert [use.place.file for use in uses.uses] == ["b.py", "src/a.py"]
    assert [use.place.file for use in find_uses([Path()]).uses] == ["b.py", "src/a.py"]


def test_places_are_counted_in_characters(write: Write) -> None:
    folder = write({"a.py": USE + 'print("ää", te.flax)\r\n\x0cte.dense\r\n'})
    places = [(use.place.line, use.place.column, use.place.source) for use in find_uses([folder]).uses]
    assert places == [(1, 8, USE.strip()), (2, 13, 'print("ää", te.flax)'), (3, 2, "te.dense")]


def test_encodings_are_those_of_python(write: Write) -> None:
    folder = write({})
    folder.mkdir()
    (folder / "bom.py").write_bytes(b"\xef\xbb\xbf" + USE.encode())
    (folder / "latin.py").write_bytes(b"# coding: latin-1\n# \xe4\n" + USE.encode())
    (folder / "wrong.py").write_bytes(USE.encode() + b"\n\n# \xe4\n")
    (folder / "unknown.py").write_bytes(b"# coding: klingon\n" + USE.encode())
    (folder / "rot13.py").write_bytes(b"# coding: rot13\n" + USE.encode())
    uses = find_uses([folder])
    assert files(uses, folder) == ["bom.py", "latin.py"]
    assert [(Path(each.place.file).name, each.reason, each.may_use) for each in uses.unread] == [
        ("rot13.py", "it is no text in ROT13", True),
        ("unknown.py", "this Python cannot parse it: unknown encoding: klingon", True),
        ("wrong.py", "it is no text in UTF-8", True),
    ]


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file or folder .*nowhere; expected your sources"):
        find_uses([tmp_path / "nowhere"])


def test_scripts_without_a_suffix_are_read(write: Write) -> None:
    folder = write({"run": f"#!/usr/bin/env python3\n{USE}", "other": f"#!/bin/sh\n{USE}", "text": USE})
    for file in folder.iterdir():
        file.chmod(0o755)
    assert files(find_uses([folder]), folder) == ["run"]
    assert files(find_uses([folder / "text"]), folder) == ["text"]


def test_configuration_is_read_as_text(write: Write) -> None:
    folder = write(
        {
            "a.yaml": "# transformer_engine.jax.Old\nmodel:\n  _target_: transformer_engine.jax.flax.DenseGeneral #\n",
            "b.json": '{"a": "transformer_engine.jax.autocast"}',
            "c.toml": "url = 'https://host/transformer_engine-2.9.whl'\nurl = '#transformer_engine.jax.moe'",
            "d.txt": "transformer_engine.jax",
        }
    )
    uses = find_uses([folder]).uses
    assert {use.kind for use in uses} == {UseKind.TEXT}
    assert [(Path(use.place.file).name, use.place.line, use.place.column, use.path) for use in uses] == [
        ("a.yaml", 3, 13, "transformer_engine.jax.flax.DenseGeneral"),
        ("b.json", 1, 8, "transformer_engine.jax.autocast"),
        ("c.toml", 2, 9, "transformer_engine.jax.moe"),
    ]


# --- notebooks ---


def test_the_cells_of_a_notebook_are_one_module(write: Write) -> None:
    commands = "!pip install x\nfiles = !ls\nte.autocast?\nte.autocast(\n  1)"
    cells = notebook(["%matplotlib inline\n", USE], commands, "te.moe()")
    uses = find_uses([write({"a.ipynb": cells, "a.py": USE})])
    assert [(use.place.cell, use.place.line, use.path) for use in uses.uses if use.place.cell] == [
        (2, 2, "transformer_engine.jax"),
        (3, 4, "transformer_engine.jax.autocast"),
        (4, 1, "transformer_engine.jax.moe"),
    ]
    assert uses.unread == ()


def test_magics_over_a_cell_are_known(write: Write) -> None:
    other = "%%bash\nexport transformer_engine.jax"
    cells = notebook(f"%%time\n{USE}", other, "%%capture out\nte.moe()", "x = '''\n%d\n'''; te.f")
    uses = find_uses([write({"a.ipynb": cells})])
    assert [(use.place.cell, use.place.line) for use in uses.uses] == [(2, 2), (4, 2), (5, 3)]


def test_a_cell_that_does_not_parse_does_not_hide_the_others(write: Write) -> None:
    uses = find_uses([write({"a.ipynb": notebook(USE, "te.(", "te.moe()")})])
    assert [use.place.cell for use in uses.uses] == [2, 4]
    assert [(each.place.cell, each.place.line, each.may_use) for each in uses.unread] == [(3, 1, False)]


def test_a_notebook_in_another_language_is_passed_over(write: Write) -> None:
    uses = find_uses([write({"a.ipynb": notebook(USE, kernelspec={"language": "R"})})])
    assert (uses.uses, uses.unread, uses.files) == ((), (), 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("transformer_engine.jax", "it is no notebook: it holds no JSON"),
        ('["transformer_engine"]', "it is no notebook: it has no cells"),
        ('{"cells": 3, "a": "transformer_engine"}', "it is no notebook: it has no cells"),
        ("[" * 200_000 + "transformer_engine", "it is no notebook: it holds no JSON"),
    ],
)
def test_what_is_no_notebook_is_named(write: Write, content: str, reason: str) -> None:
    uses = find_uses([write({"a.ipynb": content, "b.py": USE})])
    assert [(each.reason, each.may_use) for each in uses.unread] == [(reason, True)]
    assert len(uses.uses) == 1


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import transformer_engine\nprint 'x'\n", 2),
        ("import transformer_engine\n  indented = 1\n", 2),
        ("import transformer_engine\nx = (\n", 2),
        ("import transformer_engine\nx = '\n", 2),
        ("import transformer_engine\n# \0\n", None),
        ("import transformer_engine\nx = " + "(" * 5000 + ")" * 5000, None),
        ("import transformer_engine\nx = " + "-" * 500_000 + "1", None),
        ("import transformer_engine\n" + "".join(" " * n + "if x:\n" for n in range(150)), None),
        ("import transformer_engine\nx = " + "9" * 10_000, None),
    ],
)
def test_what_does_not_parse_is_named(write: Write, source: str, line: int | None) -> None:
    uses = find_uses([write({"a.py": source, "b.py": USE})])
    assert [Path(each.place.file).name for each in uses.unread] == ["a.py"]
    assert uses.unread[0].may_use
    assert line is None or uses.unread[0].place.line == line
    assert "b.py" in [Path(use.place.file).name for use in uses.uses]


@pytest.mark.parametrize(
    "source",
    [
        "x = " + " + ".join(["te.a"] * 3000),
        "x = te" + ".a" * 3000,
        "x = te" + ".a()" * 900,
        "x = " + "[" * 90 + "te.a" + "]" * 90,
        "x = {" + "1: te.a," * 3000 + "}",
        "if te.a: pass\n" + "elif te.a: pass\n" * 900,
        "x = " + "lambda: " * 80 + "te.a",
        "a0 = te.a\n" + "".join(f"a{n + 1} = a{n} or te.b{n}\n" for n in range(900)),
        "class A0(te.A): pass\n" + "".join(f"class A{n + 1}(A{n}): x = te.a\n" for n in range(300)),
        "class A(A): pass\nclass B(A, te.B): pass\nB().x",
        "def f(): return f()\nf()(te.a)",
        "te = te.a\n" * 300,
        "".join(f"if te.a: b{n} = te.c\n" for n in range(5000)),
        "x = '" + "import " * 100_000 + "'; te.a",
        "x = '" + "from a import (" * 20_000 + "'; te.a",
        "".join(f"def f{n}(): return f{n + 1}()\n" for n in range(1000)) + "def f1000(): return te.A()\nf0().b",
        "class A0(te.A): pass\n" + "".join(f"class A{n + 1}(A{n}):\n def f(self): self.a()\n" for n in range(1000)),
    ],
)
def test_what_is_nested_deeply_or_turns_in_circles_ends(write: Write, source: str) -> None:
    uses = find_uses([write({"a.py": USE + source, "b.py": USE})])
    assert "b.py" in [Path(use.place.file).name for use in uses.uses]
    assert len(uses.uses) > 2 or uses.unread
    assert {each.reason for each in uses.unread} <= {
        "it is nested too deeply",
        "this Python cannot parse it: too many nested parentheses",
    }


def test_newer_grammar_is_read(write: Write) -> None:
    source = """
        import transformer_engine.jax as te
        type Rows[T] = list[T]
        def f[T: (int, list[int])](x: T) -> T:
            try:
                return te.f(x)
            except ValueError, TypeError:
                return te.g(x)
        class A[T](te.A): pass
    """
    uses = find_uses([write({"a.py": source})])
    assert [(use.place.line, use.path[-2:]) for use in uses.uses] == [(2, "ax"), (6, ".f"), (8, ".g"), (9, ".A")]
    assert uses.unread == ()


def test_a_line_in_newer_grammar_is_named_and_the_others_are_read(write: Write) -> None:
    uses = find_uses([write({"a.py": USE + 'print(f"{te.f("x")}")\nte.g()\n'})])
    is_read = sys.version_info >= (3, 12)
    assert [use.place.line for use in uses.uses if use.path.endswith(".g")] == [3]
    assert [(each.place.line, each.may_use) for each in uses.unread] == ([] if is_read else [(2, True)])


def test_a_file_that_is_too_large_is_named(write: Write) -> None:
    folder = write({"c.py": USE})
    for name in ("a.py", "b.py", "d.yaml"):
        (folder / name).write_bytes(b"x = 1\n" * 1_000_000 + USE.encode() * (name == "b.py"))
    uses = find_uses([folder])
    assert [(Path(each.place.file).name, each.reason, each.may_use) for each in uses.unread] == [
        ("a.py", "it is larger than 2 MiB", False),
        ("b.py", "it is larger than 2 MiB", True),
        ("d.yaml", "it is larger than 2 MiB", False),
    ]
    assert files(uses, folder) == ["c.py"]


def test_links_are_followed_once(write: Write) -> None:
    folder = write({"src/a.py": USE, "other/b.py": USE})
    (folder / "src" / "loop").symlink_to(folder)
    (folder / "src" / "self").symlink_to("self")
    (folder / "src" / "nowhere.py").symlink_to("gone.py")
    (folder / "src" / "again.py").symlink_to("a.py")
    uses = find_uses([folder])
    assert len(uses.uses) == 2
    assert [(Path(each.place.file).name, each.may_use) for each in uses.unread] == [("nowhere.py", True)]


def test_pipes_sockets_and_devices_are_not_opened(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({"a.py": USE})
    os.mkfifo(folder / "pipe.py")
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.ipynb")
        (folder / "device.py").symlink_to("/dev/zero")
        uses = find_uses([folder, Path("pipe.py")])
    names = {Path(each.place.file).name for each in uses.unread}
    assert (len(uses.uses), names) == (1, {"pipe.py", "socket.ipynb", "device.py"})
    assert {each.reason for each in uses.unread} == {"it is no regular file"}


def test_what_may_not_be_read_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({"a.py": USE, "b.py": USE, "closed/c.py": USE})
    real_open, real_scan = Path.open, os.scandir

    def opened(path: Path, *args: object, **options: object) -> object:
        if path.name == "a.py":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **options)  # type: ignore[call-overload]

    def scanned(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real_scan(path)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "scandir", scanned)
    uses = find_uses([folder])
    assert files(uses, folder) == ["b.py"]
    assert [(Path(each.place.file).name, each.reason, each.may_use) for each in uses.unread] == [
        ("a.py", "Permission denied", True),
        ("closed", "Permission denied", True),
    ]


def test_names_of_files_may_be_no_text(write: Write) -> None:
    folder = write({"a.py": USE})
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py"))).write_text(USE)
    assert [Path(use.place.file).name for use in find_uses([folder]).uses] == ["a.py", "\ufffd.py"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["a.py", "a.ipynb", "a.yaml"]),
    st.lists(
        st.one_of(
            st.binary(max_size=20), st.sampled_from([b"transformer_engine", b"import ", b"\n", b'{"cells": [', b"("])
        )
    ),
)
def test_nothing_that_a_file_can_hold_is_an_error(tmp_path: Path, name: str, content: list[bytes]) -> None:
    (tmp_path / name).write_bytes(b"".join(content))
    find_uses([tmp_path / name])

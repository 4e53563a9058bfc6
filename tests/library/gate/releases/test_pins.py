"""Requirements files as pip and uv take them: the release that they pin, or one line that says why not."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.releases import pins

PIN = "transformer-engine==2.3.0"


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index is set."""
    for name in pins._INDEX_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, content: str | bytes, name: str = "te.txt") -> Path:
    """Write a requirements file."""
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    "content",
    [
        PIN,
        "Transformer.Engine [jax] == 2.3.0  # accepted",
        "transformer_engine===2.3.0",
        f"{PIN} --hash=sha256:00",
        f"{PIN} \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n",
        f"{PIN}\r\njax==0.10.2\r\n",
        f"jax==0.10.2\n./folder\n-e .\nhttps://example.org/x.whl\n--pre\n{PIN} ; python_version > '3'",
        f"{PIN}; python_version > '3'\ntransformer-engine==2.4.0; python_version < '3'",
        "transformer-engine-jax==9.9\ntransformer-engine==2.3.0,>2",
        b"\xef\xbb\xbf" + PIN.encode(),
        PIN.encode("utf-16"),
        b"\xfe\xff" + PIN.encode("utf-16-be"),
        PIN.encode("utf-32"),
    ],
)
def test_pin_is_read_as_pip_reads_it(content: str | bytes, tmp_path: Path) -> None:
    assert pins.pinned(write(tmp_path, content)) == "2.3.0"


def test_included_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", f"-r deepest.txt\n{PIN}", "deep.txt")
    write(tmp_path / "more", "jax", "deepest.txt")
    assert pins.pinned(write(tmp_path, "-r more/deep.txt")) == "2.3.0"
    assert pins.pinned(write(tmp_path, "--requirement=more/deep.txt")) == "2.3.0"
    with pytest.raises(ConfigError, match="pins transformer-engine 2 times"):
        pins.pinned(write(tmp_path, f"-r more/deep.txt\n{PIN}"))


def test_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "-r b.txt", "a.txt")
    write(tmp_path, "-r a.txt", "b.txt")
    with pytest.raises(ConfigError, match=r"b\.txt includes a\.txt, which includes it"):
        pins.pinned(tmp_path / "a.txt")
    with pytest.raises(ConfigError, match=r"te\.txt includes te\.txt, which includes it"):
        pins.pinned(write(tmp_path, "-r te.txt"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "pins transformer-engine 0 times"),
        (f"# {PIN}", "pins transformer-engine 0 times"),
        (f"{PIN}\n{PIN}", "pins transformer-engine 2 times"),
        ("transformer-engine", "has transformer-engine; expected one version"),
        ("transformer-engine>=2", "has transformer-engine>=2; expected one version"),
        ("transformer-engine==2.*", r"has transformer-engine==2\.\*; expected one version"),
        ("transformer-engine==2.3,>3", "; expected one version"),
        ("transformer-engine==2.3,==2.4", "; expected one version"),
        (
            "transformer_engine @ git+https://example.org/te@v2",
            r"installs transformer-engine from git\+https://example",
        ),
        ("-r gone.txt", r"gone\.txt cannot be read: No such file"),
        (b"\xff\xfe\x00\xd8", "is not text in utf-16"),
        (b"\xff", "is not text in utf-8"),
        (f"--index-url https://mirror.example/simple\n{PIN}", "has --index-url https://mirror.example/simple, which"),
        (f"-i https://mirror.example/simple\n{PIN}", "has -i https://mirror.example/simple, which is not used: set UV"),
        (f"--extra-index-url=https://mirror.example\n{PIN}", "has --extra-index-url https://mirror.example, which"),
        (f"--no-index\n{PIN}", "has --no-index, which is not used"),
    ],
)
def test_what_cannot_be_taken_is_one_line(content: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        pins.pinned(write(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["https://mirror.example/simple/", "https://a.example ours=https://mirror.example/simple"]
)
def test_index_that_uv_asks_as_well_is_no_objection(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX", value)
    assert pins.pinned(write(tmp_path, f"--index-url https://mirror.example/simple\n{PIN}")) == "2.3.0"


# --- other packages --------------------------------------------------------------------------------------------------


def test_packages_are_those_that_a_file_and_what_it_includes_name(tmp_path: Path) -> None:
    write(tmp_path, "numpy>=2\n", "more.txt")
    lines = [
        "einops==0.8.1  # the newest",
        "-r more.txt",
        "chex ; python_version < '3'",
        "a-b @ https://example.org/a.zip",
    ]
    file = write(tmp_path, "\n".join([*lines, "safe==1 --hash=sha256:00"]))
    assert pins.packages(file) == (
        "einops==0.8.1",
        "numpy>=2",
        str(Requirement("a-b @ https://example.org/a.zip")),
        "safe==1",
    )
    assert pins.packages(write(tmp_path, "# nothing\n")) == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "jax==0.9",
            "te.txt has jax==0.9, but each release is judged with a jax of its own: leave out jax, jaxlib, flax",
        ),
        ("JAXlib", "has JAXlib, but each release is judged with a jaxlib of its own"),
        ("flax[all]>=0.10", "judged with a flax of its own: leave out jax, jaxlib, flax and transformer-engine"),
        (PIN, "judged with a transformer-engine of its own"),
        ("Transformer_Engine_JAX", "judged with a transformer-engine-jax of its own"),
        ("./mine", "te.txt has ./mine; expected packages by name, such as einops==0.8.1"),
        ("-e .", "has -e .; expected packages by name"),
        ("-c more.txt", "has -c more.txt; expected packages by name"),
        ("mine @ file:///mine", "file:///mine; expected packages by name"),
        ("-i https://example.org", "has -i https://example.org, which is not used: set UV_DEFAULT_INDEX"),
        ("-r gone.txt", "gone.txt cannot be read: No such file"),
    ],
)
def test_packages_that_cannot_be_had_are_one_line(line: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        pins.packages(write(tmp_path, f"einops\n{line}\n"))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)

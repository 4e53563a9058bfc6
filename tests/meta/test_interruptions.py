"""The proof of disturbed commands can fail: at a wrong answer, a traceback, and what misleads the second run."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from proofs import interruptions
from proofs.interruptions import Answer, Network, Place, Way
from proofs.mutation.results import Notes

pytestmark = pytest.mark.host

PASSED = Answer(0, ["claims one: passed"])
SCRIPT = """
import os, pathlib, signal, sys, time
begun = pathlib.Path(os.environ["XDG_CACHE_HOME"], "begun")
how, report = sys.argv[1], pathlib.Path(sys.argv[-1])
is_again = begun.exists()
if how == "lies":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
if how == "chats":
    print("Traceback (most recent call last):", flush=True)
begun.parent.mkdir(parents=True, exist_ok=True)
begun.touch()
if not is_again:
    time.sleep(30 if how != "none" else 0)
if how != "none":
    report.mkdir()
    inside = "<failure/>" if how == "trusts" and is_again else ""
    (report / "junit.xml").write_text(f'<s><testcase classname="claims" name="one">{inside}</testcase></s>')
sys.exit(2 if how == "none" else 0)
"""


def once_begun(way: Way) -> Way:
    """A way to disturb a command as soon as it has begun: how long that takes is for the machine."""

    @contextlib.contextmanager
    def disturb(process: subprocess.Popen[bytes], place: Place) -> Iterator[None]:
        while not (place.disk / "cache" / "begun").exists():
            time.sleep(0.01)
        with way(process, place):
            yield

    return disturb


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Sequence[str]]:
    """A command that behaves as its word says, on disks that are folders."""

    @contextlib.contextmanager
    def place(network: Network) -> Iterator[Place]:
        disk = tmp_path / f"disk {len(list(tmp_path.iterdir()))}"
        disk.mkdir()
        yield Place(disk, network)

    monkeypatch.setattr(interruptions, "empty_place", place)
    monkeypatch.setattr(interruptions, "WAYS", {name: once_begun(way) for name, way in interruptions.WAYS.items()})
    file = tmp_path / "command.py"
    file.write_text(SCRIPT)
    return lambda how: (sys.executable, str(file), how)


@pytest.mark.parametrize(
    ("how", "way", "problem"),
    [
        ("works", "SIGKILL", ""),
        ("works", "SIGTERM", ""),
        ("lies", "SIGTERM", "a wrong answer"),
        ("chats", "SIGKILL", "a traceback"),
        ("trusts", "SIGKILL", "then exit code 0, and not 0: claims one: failure; claims one: passed"),
    ],
)
def test_command_is_disturbed_and_run_again(
    command: Callable[[str], Sequence[str]], how: str, way: str, problem: str
) -> None:
    found = interruptions.disturbed(command(how), way, 0.0, PASSED, Network())
    assert (found.way, found.problem) == (way, problem)


def test_command_that_gives_no_answer_shows_nothing(command: Callable[[str], Sequence[str]], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="control: undisturbed, the command gives no answer"):
        interruptions.try_all(command("none"), 1, Notes(tmp_path / "notes"))


def test_what_ended_is_not_tried_again(command: Callable[[str], Sequence[str]], tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    notes.add("undisturbed", [1.0, PASSED.code, PASSED.cases])
    seconds, outcomes = interruptions.try_all(command("works"), 1, notes)
    assert interruptions.try_all(command("none"), 1, Notes(tmp_path / "notes")) == (seconds, outcomes)
    assert [each.problem for each in outcomes] == [""]


def test_lost_network_makes_no_connection() -> None:
    network = Network()
    address = ("127.0.0.1", int(network.variables["HTTPS_PROXY"].rpartition(":")[2]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = f"CONNECT 127.0.0.1:{server.getsockname()[1]} HTTP/1.1\r\n\r\n".encode()

        def reply() -> bytes:
            with socket.create_connection(address, 10) as client:
                client.sendall(asked)
                return client.recv(100)

        assert reply().startswith(b"HTTP/1.1 200"), "control"
        with network.lost():
            assert reply() == b""

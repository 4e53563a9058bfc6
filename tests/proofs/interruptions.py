"""Whether a command that was disturbed answers, when it is run again, as an undisturbed one does.

``PYTHONPATH=.:tests python -m proofs.interruptions`` prints ``docs/evidence/interruptions.md``. Each time it starts
with an empty cache, disturbs the command at a random moment (a signal, a full disk, one that nobody may write to, no
network), waits for its end, and runs it again undisturbed. It exits 1 if that answers otherwise, or the disturbed one
gave a wrong answer or a traceback. What ended is kept, so that an interrupted proof goes on where it stopped. It has to
run as root: it mounts the disks that become full.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from mnist_fp8.cli.output import COULD_NOT_RUN, INTERRUPTED
from mnist_fp8.core.files import cache_dir
from mnist_fp8.gate.reports.markup import generated_by
from proofs.mutation import claims
from proofs.mutation.results import Notes, of_the_suite

INTRODUCTION = """\
# Commands that are disturbed, and run again

{generated}

**{right} of {count} were right.** Each row is one run of `mnist-fp8 {command}` with an empty cache that was
disturbed at a random moment. Run again, it has to give the verdict of an undisturbed run ({seconds:.0f} s), test by
test. The disturbed run itself has to end without an answer or with that one, and without a traceback.

| disturbed by | after | it ended with | run again |
|---|---|---|---|"""
UPGRADE = ("upgrade", "2.19.0", "2.20.2")
SIZE = "4g"
"""Of a disk that becomes full: enough for all that a command keeps."""
TIMEOUT_S = 3600
_TICK_S = 0.2


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command came to: its exit code, and the outcome of each case of its report."""

    code: int
    cases: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One time.

    Attributes:
        way: what disturbed it.
        moment: seconds from its start to that.
        code: exit code of the disturbed command; negative is a signal.
        problem: what is wrong; empty if nothing is.
    """

    way: str
    moment: float
    code: int
    problem: str


class Network:
    """A proxy on this machine, which can be lost: uv and all else reach the world through it alone."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lost = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that lead to it."""
        address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        return dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), address)

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Break off all connections, and make none."""
        self._lost.set()
        try:
            yield
        finally:
            self._lost.clear()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError, IndexError):
            host, _, port = client.recv(65536).split()[1].decode().rpartition(":")
            if self._lost.is_set():
                return
            with socket.create_connection((host, int(port)), 30) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while not self._lost.is_set():
                    for ready in select.select([client, server], [], [], _TICK_S)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (server if ready is client else client).sendall(data)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a command runs: a disk of its own, and the network."""

    disk: Path
    network: Network

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room on the disk."""
        filler = self.disk / "filler"
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(1 << 20))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nobody write to the disk, as soon as no file on it is open for writing."""
        for _ in range(int(TIMEOUT_S / _TICK_S)):
            if not _mount("-o", "remount,ro", str(self.disk)):
                break
            time.sleep(_TICK_S)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", str(self.disk))


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode  # noqa: S603, S607


@contextlib.contextmanager
def _signalled(number: signal.Signals, process: subprocess.Popen[bytes], _place: Place) -> Iterator[None]:
    process.send_signal(number)
    yield


Way = Callable[[subprocess.Popen[bytes], Place], contextlib.AbstractContextManager[None]]
WAYS: Mapping[str, Way] = {
    **{
        number.name: functools.partial(_signalled, number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
    },
    "full disk": lambda _, place: place.full(),
    "read-only disk": lambda _, place: place.read_only(),
    "lost network": lambda _, place: place.network.lost(),
}
"""By its name, what disturbs a command until it has ended."""


@contextlib.contextmanager
def empty_place(network: Network) -> Iterator[Place]:
    """A place whose disk is empty.

    Raises:
        SystemExit: it cannot be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        if _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder):
            sys.exit("no disk can be mounted, which would become full; expected to run as root")
        try:
            yield Place(Path(folder), network)
        finally:
            # What a killed command left behind may still run there.
            subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S603, S607


def start(command: Sequence[str], place: Place, output: Path) -> subprocess.Popen[bytes]:
    """Start a command with its cache, results and words on the disk of a place."""
    environment = os.environ | place.network.variables | {"XDG_CACHE_HOME": str(place.disk / "cache")}
    with output.open("wb") as words:
        return subprocess.Popen(  # noqa: S603 - ours
            [*command, "-o", str(place.disk / "report")], env=environment, stdout=words, stderr=words
        )


def answer(command: Sequence[str], place: Place) -> Answer:
    """Run a command undisturbed."""
    with tempfile.TemporaryDirectory() as scratch:
        words = Path(scratch) / "words"
        code = start(command, place, words).wait(TIMEOUT_S)
        report = place.disk / "report" / "junit.xml"
        if not report.exists():
            return Answer(code, words.read_text().splitlines()[-1:])
    found = ET.parse(report).iter("testcase")  # noqa: S314 - written by us
    return Answer(code, sorted(f"{case.get('classname')} {case.get('name')}: {_outcome(case)}" for case in found))


def _outcome(case: ET.Element) -> str:
    return ", ".join(child.tag for child in case if child.tag in ("failure", "error", "skipped")) or "passed"


def disturbed(command: Sequence[str], way: str, moment: float, right: Answer, network: Network) -> Outcome:
    """Disturb a command, and run it again."""
    with empty_place(network) as place, tempfile.TemporaryDirectory() as scratch:
        words = Path(scratch) / "words"
        process = start(command, place, words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        with WAYS[way](process, place):
            code = process.wait(TIMEOUT_S)
        again = answer(command, place)
        problems = []
        if code >= 0 and code not in (right.code, COULD_NOT_RUN, INTERRUPTED):
            problems.append("a wrong answer")
        if "Traceback" in words.read_text(errors="replace"):
            problems.append("a traceback")
    if again != right:
        different = sorted({*again.cases} ^ {*right.cases})
        problems.append(f"then exit code {again.code}, and not {right.code}: {'; '.join(different[:3])}")
    return Outcome(way, moment, code, ", ".join(problems))


def try_all(command: Sequence[str], count: int, notes: Notes) -> tuple[float, list[Outcome]]:
    """The seconds of an undisturbed run, and what became of disturbed ones.

    Raises:
        SystemExit: the undisturbed one gives no answer, so that the others would show nothing.
    """
    network = Network()
    if "undisturbed" not in notes:
        begin = time.monotonic()
        with empty_place(network) as place:
            found = answer(command, place)
        notes.add("undisturbed", [time.monotonic() - begin, found.code, found.cases])
    seconds, *parts = notes["undisturbed"]
    right = Answer(*parts)
    if right.code == COULD_NOT_RUN:
        sys.exit(f"control: undisturbed, the command gives no answer: {', '.join(right.cases)}")
    for number, way in zip(range(count), itertools.cycle(WAYS)):
        if str(number) not in notes:
            moment = random.Random(number).uniform(0, seconds)  # noqa: S311 - no secret
            outcome = disturbed(command, way, moment, right, network)
            notes.add(str(number), dataclasses.asdict(outcome))
            print(outcome, file=sys.stderr, flush=True)
    return seconds, [Outcome(**notes[str(number)]) for number in range(count)]


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30, help="how many times (default: %(default)s)")
    parser.add_argument(
        "command", nargs="*", default=UPGRADE, help="words after mnist-fp8, of a command that writes reports to -o"
    )
    args = parser.parse_args()
    words = " ".join(args.command)
    notes = Notes(cache_dir() / "interruptions" / f"{of_the_suite(claims.ROOT)} {words}.jsonl".replace("/", "_"))
    try:
        seconds, outcomes = try_all([sys.executable, "-m", "mnist_fp8", *args.command], args.count, notes)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
    right = sum(not outcome.problem for outcome in outcomes)
    asked = f"--count {args.count}" + ("" if args.command == UPGRADE else f" -- {words}")
    made = f"PYTHONPATH=.:tests python -m proofs.interruptions {asked} > docs/evidence/interruptions.md"
    about = {"generated": generated_by(made), "right": right, "count": len(outcomes)}
    print(INTRODUCTION.format(**about, command=words, seconds=seconds))
    for each in outcomes:
        print(f"| {each.way} | {each.moment:.1f} s | exit code {each.code} | {each.problem or 'as undisturbed'} |")
    sys.exit(right < len(outcomes))


if __name__ == "__main__":
    main()

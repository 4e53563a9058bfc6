"""Wrong command lines, and what each prints: one line on standard error and exit code 2."""

import contextlib
import dataclasses
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from mnist_fp8.cli import main
from mnist_fp8.training import data

TIMEOUT_S = 120


class NotRefusedError(AssertionError):
    """A command line that should have been refused was not; it is stopped before it trains for minutes."""


@dataclasses.dataclass(frozen=True)
class BadInput:
    """A wrong command line.

    Attributes:
        command: as typed, environment variables in front.
        says: part of the line that it prints.
        host: whether it is wrong only where TE has no kernels.
    """

    command: str
    says: str
    host: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: exit code.
        out: standard output.
        err: standard error.
        written: files that came or changed, relative to the working directory.
    """

    code: int
    out: str
    err: str
    written: set[str]


FP8 = "mnist-fp8 train --use-fp8"
CURRENT = f"{FP8} --fp8-recipe Float8CurrentScaling"

SECTIONS: dict[str, list[BadInput]] = {
    "Precision and recipe": [
        BadInput(f"{FP8} --fp8-recipe Foo", "recipe 'Foo' is not in Transformer Engine"),
        BadInput(
            f"{FP8} --fp8-recipe MXFP8BlockScaling --batch-size 16",
            "batch size is 16; MXFP8BlockScaling needs a multiple of 32",
            host=True,
        ),
        BadInput(
            f"{FP8} --fp8-recipe NVFP4BlockScaling --quick --batch-size 16",
            "batch size is 16; NVFP4BlockScaling needs a multiple of 32",
            host=True,
        ),
        BadInput(
            f"{CURRENT} --disable-rht",
            "recipe Float8CurrentScaling has no option disable_rht; it is one of NVFP4BlockScaling",
        ),
        BadInput(
            f"{FP8} --fp8-recipe Float8BlockScaling",
            "Possible here: DelayedScaling, Float8CurrentScaling",
            host=True,
        ),
        BadInput(
            f"{CURRENT} --amax-history-len 16",
            "recipe Float8CurrentScaling has no option amax_history_len; it is one of DelayedScaling",
        ),
        BadInput(f"{FP8} --amax-history-len 0", "amax history length is 0; expected 1 to 1000000"),
        BadInput(f"{FP8} --amax-history-len 99999999999", "amax history length is 99999999999; expected 1 to 1000000"),
        BadInput(f"{FP8} --amax-history-len many", "invalid int value: 'many'"),
        BadInput(f"{FP8} --amax-compute-algo foo", "amax algorithm is 'foo'; expected 'max' or 'most_recent'"),
        BadInput(f"{FP8} --fp8-margin 200", "FP8 margin is 200; expected -30 to 30"),
        BadInput("mnist-fp8 train --fp8-margin 1", "--fp8-margin needs --use-fp8"),
        BadInput(
            "mnist-fp8 train --use-te --fp8-recipe DelayedScaling --fp8-update-interval 2",
            "--fp8-recipe, --fp8-update-interval need --use-fp8",
        ),
        BadInput(f"{FP8} --fp8-format E5M2", "E5M2"),
        BadInput(f"{FP8} --fp8-format E2M1", "FP8 format is 'E2M1'; expected E4M3 or HYBRID"),
        BadInput(f"{FP8} --fp8-format foo", "FP8 format is 'foo'; expected E4M3 or HYBRID"),
        BadInput(f"{FP8} --fp8-update-interval 0", "FP8 update interval is 0; expected 1 to 2147483647"),
        BadInput(f"{FP8} --fp8-update-interval 99999999999", "interval is 99999999999; expected 1 to 2147483647"),
        BadInput(
            f"{CURRENT} --fp8-update-interval 2",
            "recipe Float8CurrentScaling keeps no metadata, so an update interval has no meaning",
        ),
        BadInput("MNIST_FP8_TE=foo mnist-fp8 train --use-te", "MNIST_FP8_TE is 'foo'; expected 'kernel' or 'host'"),
        BadInput("mnist-fp8 train --capability 10.0", "--capability needs --use-te or --use-fp8"),
        BadInput(
            f"MNIST_FP8_CAPABILITY=9.0 {FP8} --fp8-recipe MXFP8BlockScaling --quick",
            "NVFP4 do not run): Device compute capability 9.9 or higher required for MXFP8 execution. Possible here",
            host=True,
        ),
        BadInput(f"MNIST_FP8_TE=kernel {FP8}", "MNIST_FP8_TE=kernel needs a GPU and TE's CUDA", host=True),
    ],
    "Sizes and numbers": [
        BadInput("mnist-fp8 train --batch-size 0", "batch size is 0; expected 1 or more"),
        BadInput("mnist-fp8 train --batch-size -5", "batch size is -5; expected 1 or more"),
        BadInput("mnist-fp8 train --batch-size abc", "argument --batch-size: invalid int value: 'abc'"),
        BadInput("mnist-fp8 train --batch-size 70000", "batch size is 70000, more than the 60000 images there are"),
        BadInput("mnist-fp8 train --train-size 32", "batch size is 64, more than the 32 images there are"),
        BadInput(f"{FP8} --batch-size 20", "batch size is 20; DelayedScaling needs a multiple of 16"),
        BadInput("mnist-fp8 train --test-batch-size 0", "test batch size is 0; expected 1 or more"),
        BadInput("mnist-fp8 train --test-batch-size -5", "test batch size is -5; expected 1 or more"),
        BadInput("mnist-fp8 train --test-batch-size 1.5", "argument --test-batch-size: invalid int value: '1.5'"),
        BadInput("mnist-fp8 train --test-batch-size 70000", "test batch size is 70000, more than the 10000 images"),
        BadInput(f"{FP8} --test-batch-size 20", "test batch size is 20; DelayedScaling needs a multiple of 16"),
        BadInput("mnist-fp8 train --epochs 0", "epochs is 0; expected 1 or more"),
        BadInput("mnist-fp8 train --lr nan", "learning rate is nan; expected a finite number above 0"),
        BadInput("mnist-fp8 train --lr 0", "learning rate is 0.0; expected a finite number above 0"),
        BadInput("mnist-fp8 train --lr -1", "learning rate is -1.0; expected a finite number above 0"),
        BadInput("mnist-fp8 train --momentum 1", "momentum is 1.0; expected a number from 0 to below 1"),
        BadInput("mnist-fp8 train --seed -1", "seed is -1; expected 0 to 4294967295"),
        BadInput("mnist-fp8 train --seed 4294967296", "seed is 4294967296; expected 0 to 4294967295"),
    ],
    "Data": [
        BadInput("mnist-fp8 train --data-dir missing", "data directory missing does not exist; expected a"),
        BadInput("mnist-fp8 train --data-dir a-file", "data directory a-file is not a directory; expected a"),
        BadInput("mnist-fp8 train --data-dir", "argument --data-dir: expected one argument"),
        BadInput("mnist-fp8 train --train-size 70000", "train size is 70000; MNIST's train split has 60000 images"),
        BadInput("mnist-fp8 train --train-size 0", "train size is 0; expected 1 or more"),
        BadInput("mnist-fp8 train --test-size 0", "test size is 0; expected 1 or more"),
        BadInput("mnist-fp8 train --test-size 10001", "test size is 10001; MNIST's test split has 10000 images"),
    ],
    "Devices": [
        BadInput(
            "mnist-fp8 train --mesh dp=99 --batch-size 99 --test-batch-size 99",
            "the mesh asks for 99 devices; JAX has ",
        ),
        BadInput("mnist-fp8 train --mesh dp=99", "batch size is 64; expected a multiple of the mesh's 99 devices"),
        BadInput("mnist-fp8 train --mesh foo", "argument --mesh: 'foo' is not of the form AXIS=N[,AXIS=N]"),
        BadInput("mnist-fp8 train --mesh dp=0", "argument --mesh: 'dp=0' is not of the form AXIS=N[,AXIS=N]"),
        BadInput("mnist-fp8 train --mesh dp=2,dp=2", "argument --mesh: 'dp=2,dp=2' names an axis twice"),
        BadInput("mnist-fp8 train --mesh tp=2", "mesh axis 'tp' divides the model; this trainer divides the batch"),
        BadInput(
            "mnist-fp8 train --mesh dp=2 --batch-size 15", "batch size is 15; expected a multiple of the mesh's 2"
        ),
    ],
    "Verifying": [
        BadInput("mnist-fp8 verify --claim foo", "claim 'foo' is not known; there are attention, attention_dropout, "),
        BadInput("mnist-fp8 verify 9.9.9 --claim", "argument --claim: expected at least one argument"),
        BadInput("mnist-fp8 verify foo", "'foo' is no Transformer Engine: expected a version such as "),
        BadInput("mnist-fp8 verify missing/te", "'missing/te' is no Transformer Engine: expected "),
        BadInput("mnist-fp8 verify 2.20.2 2.20.2", "the same Transformer Engine is named twice"),
        BadInput("mnist-fp8 verify 2.20.2 --output a-file", "output a-file cannot be a folder: a-file is a file"),
        BadInput("mnist-fp8 matrix --te foo", "'foo' means no known release; expected all, a version"),
        BadInput("mnist-fp8 matrix --te 2.9..2.3", "'2.9..2.3' means no known release; expected "),
        BadInput("mnist-fp8 matrix --claim foo", "claim 'foo' is not known; there are attention, attention_dropout, "),
        BadInput("mnist-fp8 matrix --jobs 0", "argument --jobs: '0' is not a number from 1"),
        BadInput("mnist-fp8 matrix --output a-file", "output a-file cannot be a folder: a-file is a file"),
        BadInput("mnist-fp8 bisect --good 2.3.0 --claim kernels", "the following arguments are required: --bad"),
        BadInput("mnist-fp8 bisect --good 2.3 --bad 2.9", "one of the arguments --claim --entry --command is required"),
        BadInput("mnist-fp8 bisect --good foo --bad 2.20.2 --claim kernels", "release 'foo' is not known; there are "),
        BadInput("mnist-fp8 bisect --good 2.3.0 --bad 2.20.2 --claim foo", "claim 'foo' is not known; there are "),
        BadInput("mnist-fp8 bisect --good 2.20.2 --bad 2.20.2 --entry x", "good and the bad release are both 2.20.2"),
        BadInput("mnist-fp8 bisect --good 2.3.0 --bad 2.20.2 --command ' '", "the command is empty"),
        BadInput(
            """mnist-fp8 bisect --good 2.3.0 --bad 2.20.2 --command "it's\"""", "cannot be split into words: No closing"
        ),
        *(
            BadInput(
                f"mnist-fp8 {words} --capability 8.9",
                "argument --capability: compute capability is '8.9'; expected 9.0 or 10.0",
            )
            for words in (
                *("verify 2.20.2", "upgrade 2.19.0 2.20.2", "matrix", "measure 2.20.2", "train --use-te", "run"),
                "bisect --good 2.3.0 --bad 2.20.2 --entry bits",
            )
        ),
        BadInput("MNIST_FP8_CAPABILITY=8.9 mnist-fp8 verify 2.20.2", "MNIST_FP8_CAPABILITY is '8.9'; expected 9.0 or"),
        BadInput("MNIST_FP8_TE=kernel mnist-fp8 matrix --capability 10.0", "compute capability 10.0 can only be pret"),
        BadInput("mnist-fp8 stacks", "the following arguments are required: --search"),
    ],
    "The user's model": [
        BadInput("mnist-fp8 verify 2.20.2 --model ours", "model is 'ours'; expected PACKAGE:FACTORY, such as ours.mod"),
        BadInput("mnist-fp8 verify 2.20.2 --model ours:case", "there is no ours/ and no ours.py in /"),
        BadInput("mnist-fp8 matrix --model ours:case --model-path gone", "model path gone is no folder; expected the"),
        BadInput(
            "mnist-fp8 verify 2.20.2 --model-path .", "--model-path is given, but no model; expected --model PACK"
        ),
        BadInput(
            "mnist-fp8 upgrade 2.19.0 2.20.2 --model-requirements x", "--model-requirements is given, but no model"
        ),
        BadInput(
            "mnist-fp8 upgrade 2.19.0 2.20.2 --model a:b --only api", "--model has no part in what is asked for; "
        ),
        BadInput(
            "mnist-fp8 verify 2.20.2 --model a:b --claim kernels", "expected a claim whose name begins with model_"
        ),
        BadInput("mnist-fp8 measure 2.20.2 --model a:b --only numerics", "or keys that begin with layers/a:b"),
        BadInput(
            "mnist-fp8 bisect --good 2.3.0 --bad 2.4.0 --entry x --model a:b", "--model has no part in what is asked"
        ),
        BadInput(
            "mnist-fp8 verify 2.20.2 --model a:b --model-requirements gone", "requirements file gone cannot be read: No"
        ),
    ],
    "Upgrades and records": [
        BadInput("mnist-fp8 upgrade", "the following arguments are required: OLD"),
        BadInput("mnist-fp8 upgrade 2.20.2", "nothing changes: expected a second Transformer Engine, --jax OLD:NEW"),
        BadInput("mnist-fp8 upgrade 2.20.2 --jax 0.10.2", "nothing changes: expected a second Transformer Engine"),
        BadInput("mnist-fp8 upgrade 2.20.2 --jax 0.9.2:", "'0.9.2:' is no pair of versions; expected OLD:NEW"),
        BadInput("mnist-fp8 upgrade 2.20.2 --jax 0.9.2:0.10.2:0.11.2", "'0.9.2:0.10.2:0.11.2' is no pair of versions"),
        BadInput("mnist-fp8 upgrade 2.20.2 --jax old:new", "JAX version is 'old'; expected one such as 0.10.2"),
        BadInput("mnist-fp8 upgrade 2.19.0 2.20.2 --flax x", "Flax version is 'x'; expected one such as 0.12.8"),
        BadInput("mnist-fp8 upgrade 2.19.0 foo", "'foo' is no Transformer Engine: expected a version such as "),
        BadInput("mnist-fp8 upgrade missing.txt 2.20.2", "requirements file missing.txt cannot be read: No such file"),
        BadInput("mnist-fp8 upgrade 2.19.0 2.20.2 --policy missing", "policy missing"),
        BadInput("mnist-fp8 upgrade 2.19.0 2.20.2 --uses missing", "there is no file or folder missing; expected your"),
        BadInput("mnist-fp8 compare missing.json a-file --uses gone", "there is no file or folder gone; expected your"),
        BadInput("mnist-fp8 uses", "no sources are named; expected a folder or a file, or uses in [tool.mnist-fp8]"),
        BadInput("mnist-fp8 uses missing", "there is no file or folder missing; expected your sources"),
        BadInput("mnist-fp8 uses a-file -o a-file", "output a-file cannot be a folder: a-file is a file"),
        BadInput("mnist-fp8 upgrade 2.19.0 2.20.2 --output a-file", "output a-file cannot be a folder"),
        BadInput("mnist-fp8 measure foo", "'foo' is no Transformer Engine: expected a version such as "),
        BadInput("mnist-fp8 measure 2.20.2 --python x", "both a Transformer Engine and --python are given"),
        BadInput("mnist-fp8 measure 2.20.2 --claims --only api", "--claims judges everything; with --only, measure"),
        BadInput("mnist-fp8 measure 2.20.2 --output .", "output . is a folder; expected a file, such as record.json"),
        BadInput(
            "mnist-fp8 measure 2.20.2 --output a-file/x.json", "output a-file cannot be a folder: a-file is a file"
        ),
        BadInput("mnist-fp8 compare", "the following arguments are required: OLD, NEW"),
        BadInput("mnist-fp8 compare missing.json a-file", "record missing.json cannot be read: No such file or "),
        BadInput("mnist-fp8 compare a-file a-file", "a-file is no record: expected what mnist-fp8 measure -o writes"),
    ],
    "Output": [
        BadInput("mnist-fp8 train --output a-file", "output a-file cannot be a folder: a-file is a file"),
        BadInput("mnist-fp8 train --output a-file/runs", "output a-file/runs cannot be a folder: a-file is a file"),
    ],
    "Nothing where something is expected": [
        BadInput(f"mnist-fp8 {words}", f"argument {of}: the value is empty; is a shell variable not set?")
        for words, of in (
            ("measure ''", "TE"),
            ("measure --python ''", "--python"),
            ("measure -o ''", "-o/--output"),
            ("measure --flax=", "--flax"),
            ("verify 2.20.2 ''", "TE"),
            ("verify --claim ''", "--claim"),
            ("upgrade '' 2.20.2", "OLD"),
            ("upgrade 2.20.2 ''", "NEW"),
            ("upgrade 2.19.0 2.20.2 --policy ''", "--policy"),
            ("upgrade 2.19.0 2.20.2 --only ''", "--only"),
            ("upgrade 2.19.0 2.20.2 --only api ''", "--only"),
            ("upgrade 2.20.2 --jax ''", "--jax"),
            ("upgrade 2.19.0 2.20.2 --uses ''", "--uses"),
            ("verify 2.20.2 --model ''", "--model"),
            ("verify 2.20.2 --model a:b --model-path ''", "--model-path"),
            ("compare '' new.json", "OLD"),
            ("uses ''", "PATH"),
            ("matrix --te ''", "--te"),
            ("bisect --good '' --bad 2.20.2 --entry x", "--good"),
            ("bisect --good 2.19.0 --bad 2.20.2 --entry ''", "--entry"),
            ("bisect --good 2.19.0 --bad 2.20.2 --command ''", "--command"),
            ("stacks --search ''", "--search"),
            ("run '' -- python", "TE"),
            ("train --output ''", "--output"),
            ("train --data-dir ''", "--data-dir"),
        )
    ],
    "Command": [
        BadInput("mnist-fp8", "the following arguments are required: COMMAND"),
        BadInput("mnist-fp8 fly", "argument COMMAND: invalid choice: 'fly'"),
        BadInput("mnist-fp8 train --frobnicate", "unrecognized arguments: --frobnicate"),
        BadInput("mnist-fp8 train more", "unrecognized arguments: more"),
        BadInput("XDG_CACHE_HOME=here mnist-fp8 measure 2.20.2", "XDG_CACHE_HOME is 'here'; expected an absolute path"),
        BadInput("MNIST_FP8_TE=foo mnist-fp8 doctor", "MNIST_FP8_TE is 'foo'; expected 'kernel' or 'host'"),
    ],
}

ROWS = [row for rows in SECTIONS.values() for row in rows]


def run(command: str, folder: Path) -> Outcome:
    """Run a command line in a folder, which then also holds ``a-file`` and its cache.

    It runs in this process; in one of its own where an environment variable is set, since TE is loaded only once.
    """
    (folder / "a-file").touch()
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words[: words.index("mnist-fp8")])
    arguments = words[len(variables) + 1 :]
    environ = {"XDG_CACHE_HOME": str(folder / "cache")} | variables
    before = _files(folder)
    code, out, err = _run_apart(arguments, folder, environ) if variables else _run_here(arguments, folder, environ)
    return Outcome(code, out, err, {str(path.relative_to(folder)) for path, _ in _files(folder) ^ before})


def _files(folder: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns if path.is_file() else 0) for path in folder.rglob("*")}


def _run_here(arguments: list[str], folder: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(data, "_read_bundled", side_effect=NotRefusedError("it went on to read data")),
    ):
        return exit_code(arguments), out.getvalue(), err.getvalue()


def exit_code(arguments: list[str]) -> int:
    """What the command's process would exit with."""
    try:
        return main.main(arguments)
    except SystemExit as end:  # argparse's way to refuse
        return end.code if isinstance(end.code, int) else 1


def _run_apart(arguments: list[str], folder: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and command
        [sys.executable, "-m", "mnist_fp8", *arguments],
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr

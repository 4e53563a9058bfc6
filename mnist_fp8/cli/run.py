"""``mnist-fp8 run``."""

import argparse
import subprocess

from mnist_fp8.cli.options import Commands, add_capability, capability_to_pretend
from mnist_fp8.core.errors import ConfigError


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="run a command of your own with a release of Transformer Engine",
        description="Run a command in the environment of a Transformer Engine, with its python first on PATH, and "
        "transformer_engine and mnist_fp8 importable, such as: mnist-fp8 run 2.9.0 -- python reproduce.py",
    )
    parser.add_argument("te", metavar="TE", help="a release (2.19.0), a wheel, a folder with it, or an interpreter")
    parser.add_argument("--jax", metavar="V", help="version of JAX (default: the newest that the release works with)")
    add_capability(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code is ours."""
    from mnist_fp8.gate.releases.editions import parse_edition  # noqa: PLC0415 - `--help` needs none of it
    from mnist_fp8.gate.runner.installation import Installation  # noqa: PLC0415 - `--help` needs none of it

    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        raise ConfigError("there is no command to run; put it after --, such as -- python reproduce.py")
    if words[0].startswith("-"):  # argparse takes what follows TE for the command
        raise ConfigError(f"{words[0]} stands behind {args.te}; expected options of run in front of it")
    capability = capability_to_pretend(args.capability)
    environment = Installation(parse_edition(args.te), args.jax, capability=capability).prepare()
    program, *arguments = environment.command(words)
    try:
        return subprocess.run([program, *arguments], env=environment.program_environ, check=False).returncode  # noqa: S603
    except OSError as error:
        raise ConfigError(f"the command cannot be run: {words[0]}: {error.strerror}") from error

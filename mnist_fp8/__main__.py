"""The command ``mnist-fp8``, also as ``python -m mnist_fp8``."""

import sys


def main() -> int:
    """Run the command line; returns the exit code. Ctrl-C is one line from the first moment, imports included."""
    try:
        from mnist_fp8.cli import main as command  # noqa: PLC0415 - it can be interrupted
    except KeyboardInterrupt:
        print("mnist-fp8: interrupted before anything was done", file=sys.stderr)  # noqa: T201
        return 130
    return command.main()


if __name__ == "__main__":
    sys.exit(main())

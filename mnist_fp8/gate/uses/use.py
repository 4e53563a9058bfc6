"""Uses of Transformer Engine in a user's sources: plain data, read without running any of them."""

import dataclasses
import enum

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.record.entries import Parameter
from mnist_fp8.record.names import PACKAGE


class UseKind(enum.Enum):
    """How a name is used."""

    IMPORT = "imported"
    READ = "read"
    CALL = "called"
    SUBCLASS = "subclassed"
    OVERRIDE = "overridden"
    DECORATOR = "decorates"
    ISINSTANCE = "checked by isinstance"
    CATCH = "caught"
    TEXT = "named in a string"
    DYNAMIC = "reached by getattr or importlib"
    STAR = "imported by *"
    INSPECT = "asked for its signature"


CALLS = frozenset({UseKind.CALL, UseKind.DECORATOR})


class Guard(enum.Enum):
    """What protects a use from failing."""

    IMPORT_ERROR = "except ImportError"
    ATTRIBUTE_ERROR = "except AttributeError"
    TYPE_ERROR = "except TypeError"
    EXCEPTION = "except Exception"
    PROBE = "a test of the name or of its signature"
    VERSION = "a test of the version"
    TYPE_CHECKING = "if TYPE_CHECKING"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a use is.

    Attributes:
        file: path as the user named its folder, with slashes.
        line: from 1; of a notebook, within the cell. 0 where a file as a whole is meant.
        column: from 1.
        cell: of a notebook, from 1; 0 in other files.
        source: the user's line, stripped.
    """

    file: str
    line: int
    column: int = 1
    cell: int = 0
    source: str = ""

    @property
    def order(self) -> tuple[str, int, int, int]:
        """What places are sorted by."""
        return self.file, self.cell, self.line, self.column

    @property
    def where(self) -> str:
        """File and line, and of a notebook the cell: ``train.py:12``, ``train.ipynb:3.12``."""
        line = f"{self.cell}.{self.line}" if self.cell else str(self.line or "")
        return f"{self.file}:{line}" if line else self.file


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of a call.

    Attributes:
        positional: how many are given by position, without ``*args``.
        keywords: names of those given by name, in their order.
        has_args: whether ``*args`` gives more by position: how many is not known.
        has_kwargs: whether ``**kwargs`` gives more by name: which is not known.
        unpacked: into how many targets the result is taken apart; ``None`` where it is not.
        is_partial: whether it is given to ``functools.partial``: more arguments may come later.
    """

    positional: int
    keywords: tuple[str, ...] = ()
    has_args: bool = False
    has_kwargs: bool = False
    unpacked: int | None = None
    is_partial: bool = False


@dataclasses.dataclass(frozen=True)
class Use:
    """One use of one name.

    Attributes:
        path: the dotted path that the code reaches, by its imports: it starts with ``transformer_engine``. Of an
            override, the path of the method in the class that is subclassed; of a method called on an instance, the
            path of the class and the method.
        kind: how it is used.
        place: where.
        call: its arguments, if it is a call or a decorator with arguments.
        parameters: of an override, what the user's method takes after ``self``.
        guards: what protects it from failing.
        caught: dotted names of the exceptions that the code around a call catches.
        optional: the beginning of the path that the code can do without: it was imported, or asked for, under a guard.
            What comes after it in the path is not protected. Empty where there is none.
        fallback_for: paths whose failure leads here, as those of a ``try`` lead to its ``except ImportError``: where
            all of them work, this use is not reached. Empty where it is reached anyway, or nothing is known.
        on_instance: whether a method is reached through an instance or ``super()``, so that ``self`` is none of the
            arguments.
    """

    path: str
    kind: UseKind
    place: Place
    call: Call | None = None
    parameters: tuple[Parameter, ...] = ()
    guards: frozenset[Guard] = frozenset()
    caught: tuple[str, ...] = ()
    optional: str = ""
    fallback_for: tuple[str, ...] = ()
    on_instance: bool = False


@dataclasses.dataclass(frozen=True)
class Unread:
    """Something that was not looked at.

    Attributes:
        place: the file, and the line where it is about one.
        reason: why, in a few words.
        may_use: whether it may use Transformer Engine: its text names the package, or it could not be read at all.
    """

    place: Place
    reason: str
    may_use: bool


@dataclasses.dataclass(frozen=True)
class Uses:
    """What was found in a user's sources.

    Attributes:
        uses: sorted by place.
        unread: files, and uses within files, that could not be looked at, sorted by place.
        files: how many files were looked at.
        lines: how many lines they have.
        left_out: how many folders were not entered: environments, caches and what builds leave.
        paths: of the folders and files that were named.
    """

    uses: tuple[Use, ...]
    unread: tuple[Unread, ...]
    files: int
    lines: int
    left_out: int = 0
    paths: tuple[str, ...] = ()

    def demand(self) -> None:
        """Refuse sources that use nothing: a verdict cannot rest on them.

        Raises:
            ConfigError: there is no use; one line that says what was looked at.
        """
        if not self.uses:
            unread = f", and {len(self.unread):,} places could not be read" if self.unread else ""
            raise ConfigError(
                f"your code uses nothing of Transformer Engine: {self.files:,} files with {self.lines:,} lines were"
                f" looked at{unread}; expected sources that import {PACKAGE}: name the folder that holds them"
            )


def is_below(path: str, above: str) -> bool:
    """Whether a dotted path is another one, or goes on from it."""
    return path == above or path.startswith(f"{above}.")

"""The uses that were found in one file."""

import ast
from collections.abc import Iterable, Iterator

from mnist_fp8.gate.uses.guards import Context
from mnist_fp8.gate.uses.parsing import Part
from mnist_fp8.gate.uses.use import CALLS, Call, Guard, Unread, Use, UseKind
from mnist_fp8.gate.uses.values import Reached
from mnist_fp8.record.entries import Parameter


class Findings:
    """Uses, and what cannot be read, in the order in which they were found.

    Attributes:
        part: the file or cell that is being read.
        context: what protects the place that is being read.
    """

    def __init__(self) -> None:
        self.part = Part(ast.Module([], []), [], "")
        self.context = Context()
        self._uses: list[Use] = []
        self._unread: list[Unread] = []

    def clear(self) -> None:
        """Forget what was found."""
        self._uses.clear()
        self._unread.clear()

    def use(
        self,
        node: ast.AST,
        value: Reached,
        kind: UseKind,
        *,
        call: Call | None = None,
        parameters: tuple[Parameter, ...] = (),
        guards: Iterable[Guard] = (),
    ) -> None:
        """Note a use."""
        context = self.context
        typing = {Guard.TYPE_CHECKING} if value.is_typing else set()
        self._uses.append(
            Use(
                value.path,
                kind,
                self.part.place(node),
                call,
                parameters,
                context.guards(value.path) | typing | set(guards),
                context.caught if kind in CALLS else (),
                value.optional,
                tuple(dict.fromkeys((*value.fallback_for, *context.fallback_for))),
                value.on_instance,
            )
        )

    def text(self, node: ast.AST, path: str) -> None:
        """Note a name in a string."""
        self.use(node, Reached(path), UseKind.TEXT)

    def forget_texts(self, length: int) -> None:
        """Take back the names in strings that came after there were so many uses."""
        self._uses[length:] = [use for use in self._uses[length:] if use.kind is not UseKind.TEXT]

    def unread(self, node: ast.AST, reason: str) -> None:
        """Note something that may be a use, but cannot be read."""
        self._unread.append(Unread(self.part.place(node), reason, may_use=True))

    def __len__(self) -> int:
        return len(self._uses)

    def since(self, length: int) -> list[Use]:
        """The uses that came after there were so many."""
        return self._uses[length:]

    @property
    def uses(self) -> list[Use]:
        """Each use once; a string is none where it is, or begins, a name that is reached by strings."""
        reached = [use.path for use in self._uses if use.kind is UseKind.DYNAMIC]
        begun = {path[:end] for path in reached for end in (len(path), *_dots(path))}
        found = dict.fromkeys(self._uses)
        return [use for use in found if not (use.kind is UseKind.TEXT and use.path in begun)]

    @property
    def unread_places(self) -> list[Unread]:
        """What cannot be read, each once."""
        return [*dict.fromkeys(self._unread)]


def _dots(path: str) -> Iterator[int]:
    return (index for index, character in enumerate(path) if character == ".")

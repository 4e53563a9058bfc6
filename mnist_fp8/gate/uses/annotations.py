"""What annotations say of values, and the uses of Transformer Engine in them."""

import ast

from mnist_fp8.gate.uses.calls import Calls
from mnist_fp8.gate.uses.use import Guard
from mnist_fp8.gate.uses.values import Foreign, Instance, OwnClass, OwnInstance, Reached, Values, joined

_OF_EITHER = {"Optional", "Union", "Annotated", "Final", "ClassVar", "Required", "NotRequired"}
_OF_CLASS = {"builtins.type", "typing.Type"}


class Annotations(Calls):
    """Evaluates annotations.

    Attributes:
        are_lazy: whether no annotation is evaluated when the code runs, by ``from __future__ import annotations``.
    """

    are_lazy = False

    def annotated(self, node: ast.expr | None, *, is_lazy: bool = False) -> Values:
        """What has an annotation, as far as that tells.

        Args:
            node: the annotation, if there is one.
            is_lazy: whether it is not evaluated when the code runs, as those of local variables.
        """
        if node is None:
            return ()
        context = self.findings.context
        with self.at(context.under(Guard.TYPE_CHECKING) if is_lazy or self.are_lazy else context):
            return self._instances(node)

    def _instances(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant(value=str(text)):
                return self._quoted(node, text)
            case ast.BinOp(op=ast.BitOr()):
                return joined(self._instances(node.left), self._instances(node.right))
            case ast.Subscript():
                return self._generic(node)
            case _:
                values = self.refer(node)
                self.read(node, values)
                return tuple(
                    Instance(value) if isinstance(value, Reached) else OwnInstance(value)
                    for value in values
                    if isinstance(value, OwnClass) or (isinstance(value, Reached) and value.is_class)
                )

    def _generic(self, node: ast.Subscript) -> Values:
        """``Optional[X]`` is an X, ``type[X]`` is the class; of ``list[X]`` no more is known."""
        names = {value.path for value in self.refer(node.value) if isinstance(value, Foreign)}
        if names & _OF_CLASS:
            return self.evaluate(node.slice)
        self.evaluate(node.value)
        if isinstance(node.slice, ast.Tuple):
            inside = joined(*(self._instances(each) for each in node.slice.elts if not _is_number(each)))
        else:
            inside = self._instances(node.slice)
        return inside if any(name.rpartition(".")[2] in _OF_EITHER for name in names) else ()

    def _quoted(self, node: ast.expr, text: str) -> Values:
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # a string in Literal, or words
            return ()
        for each in ast.walk(tree):
            ast.copy_location(each, node)
        with self.at(self.findings.context.under(Guard.TYPE_CHECKING)):
            return self._instances(tree)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, str)

"""What griffe's objects do not hold, noted while it reads source."""

import ast
from typing import Any

import griffe

from mnist_fp8.gate.names import bodies

Node = ast.AST | griffe.ObjectNode


class Notes(griffe.Extension):
    """Notes on modules, by dotted path.

    Attributes:
        bodies: bodies of functions, methods and properties.
        conditional: what is bound under a condition.
        bound: what assignments bind in a module or class, be it in a way that griffe does not read.
        assigned: what is set to attributes of a class from outside of it, by the path of the attribute.
        imports: what is imported to a path, star imports excepted; griffe drops it where a module has that path.
        stars: modules from which a module imports all.
        unread: what cannot be read, with the reason.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, bodies.Body] = {}
        self.conditional: set[str] = set()
        self.bound: dict[str, list[str]] = {}
        self.assigned: dict[str, dict[str, str]] = {}
        self.imports: dict[str, str] = {}
        self.stars: dict[str, list[str]] = {}
        self.unread: dict[str, str] = {}

    def on_module_instance(self, *, node: Node, mod: griffe.Module, **_options: Any) -> None:  # noqa: ANN401
        """Note what a module binds."""
        self._scope(node, mod.path)

    def on_class_instance(self, *, node: Node, cls: griffe.Class, **_options: Any) -> None:  # noqa: ANN401
        """Note what a class binds."""
        self._scope(node, cls.path)
        self._condition(node, cls.path)

    def on_function_instance(self, *, node: Node, func: griffe.Function, **_options: Any) -> None:  # noqa: ANN401
        """Note the body of a function."""
        self._function(node, func)

    def on_attribute_instance(self, *, node: Node, attr: griffe.Attribute, **_options: Any) -> None:  # noqa: ANN401
        """Note the body of a property."""
        self._function(node, attr)

    def on_alias_instance(self, *, node: Node, alias: griffe.Alias, **_options: Any) -> None:  # noqa: ANN401
        """Note an import."""
        if alias.wildcard and alias.parent:
            self.stars.setdefault(alias.parent.path, []).append(alias.wildcard)
        else:
            self.imports[alias.path] = alias.target_path
        self._condition(node, alias.path)

    def on_attribute_node(
        self,
        *,
        node: Node,
        agent: griffe.Visitor | griffe.Inspector,
        **_options: Any,  # noqa: ANN401
    ) -> None:
        """Note what a module sets on a class."""
        match node:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr=name)], value=ast.Name(id=value)):
                if agent.current.is_module:
                    cls = f"{agent.current.path}.{owner}"
                    self.assigned.setdefault(cls, {})[f"{cls}.{name}"] = f"{agent.current.path}.{value}"

    def _scope(self, node: Node, path: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef):
            for name, is_conditional in bodies.bound_names(node).items():
                self._bound(path, name, is_conditional=is_conditional)
            if call := bodies.dynamic_call(node):
                self._is_dynamic(path, f"{call}()")

    def _bound(self, scope: str, name: str, *, is_conditional: bool) -> None:
        self.bound.setdefault(scope, []).append(f"{scope}.{name}")
        if is_conditional:
            self.conditional.add(f"{scope}.{name}")

    def _condition(self, node: Node, path: str) -> None:
        if isinstance(node, ast.AST) and bodies.is_conditional(node):
            self.conditional.add(path)

    def _is_dynamic(self, path: str, how: str) -> None:
        self.unread[path] = f"{how} makes names at run time"

    def _function(self, node: Node, function: griffe.Object) -> None:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        self._condition(node, function.path)
        body = self.bodies[function.path] = bodies.read_body(node)
        for name in sorted(body.globals):
            self._bound(function.module.path, name, is_conditional=True)
        if body.dynamic:
            self._is_dynamic(function.module.path, f"{body.dynamic}()")
        if function.name in ("__getattr__", "__getattribute__") and function.parent:
            self._is_dynamic(function.parent.path, function.name)
        if function.parent and function.parent.is_class and "staticmethod" not in function.labels:
            for name in sorted(body.attributes):
                self._bound(function.parent.path, name, is_conditional=False)

"""What the statements in a user's sources do with names of Transformer Engine."""

import ast
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from mnist_fp8.gate.uses import guards
from mnist_fp8.gate.uses.definitions import Definitions
from mnist_fp8.gate.uses.guards import Context, presence
from mnist_fp8.gate.uses.use import Guard, Use, UseKind
from mnist_fp8.gate.uses.values import (
    Foreign,
    Instance,
    Items,
    OwnModule,
    Reached,
    Value,
    Values,
    elements,
    is_te,
    joined,
    texts,
)

if TYPE_CHECKING:
    from mnist_fp8.gate.uses.scopes import Changes

Branch: TypeAlias = tuple[Context, Sequence[ast.stmt]]
_MISFITS = {Guard.IMPORT_ERROR, Guard.ATTRIBUTE_ERROR, Guard.TYPE_ERROR}
_CATCHING = {"contextlib.suppress", "pytest.raises"}
_OF_NAMES = {UseKind.IMPORT, UseKind.READ, UseKind.DYNAMIC}


class Statements(Definitions):
    """Executes statements: in their order, branches side by side, loops once."""

    def block(self, body: Iterable[ast.stmt]) -> None:
        """Execute some statements. What they leave by a test is protected in what follows of them."""
        with self.at(self.findings.context):
            for statement in body:
                executor = self._EXECUTORS.get(type(statement))
                if executor is not None:
                    executor(self, statement)
                else:
                    self.evaluate(statement)

    def _branches(self, *branches: Branch, is_whole: bool = True) -> None:
        """Execute what is done in one case or another.

        Args:
            branches: what is done, and what protects it.
            is_whole: whether one of them is done in every case.
        """
        after: list[Changes] = [] if is_whole else [{}]
        for context, body in branches:
            self.scope.enter_branch()
            with self.at(context):
                self.block(body)
            changes = self.scope.leave_branch()
            after += [changes] if guards.goes_on(body) else []
        self.scope.merge(after)

    def _if(self, node: ast.If) -> None:
        values = self.evaluate(node.test)
        yes, no = self.findings.context.split(presence(values))
        if any(isinstance(value, Foreign) and value.path.endswith("TYPE_CHECKING") for value in values):
            yes = yes.under(Guard.TYPE_CHECKING)
        self._branches((yes, node.body), (no, node.orelse))
        if guards.steps_aside(node.body):
            self.findings.context = no
        elif guards.steps_aside(node.orelse):
            self.findings.context = yes

    def _while(self, node: ast.While) -> None:
        yes, _ = self.findings.context.split(presence(self.evaluate(node.test)))
        self._branches((yes, node.body), is_whole=False)
        self.block(node.orelse)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        self.assign(node.target, elements(self.evaluate(node.iter)))
        self._branches((self.findings.context, node.body), is_whole=False)
        self.block(node.orelse)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        context = self.findings.context
        for item in node.items:
            with self.at(context):
                self.evaluate(item.context_expr)
                names = self._suppressed(item.context_expr)
                context = context.catching(names, guards.guards_of(names))
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, ())
        with self.at(context):
            self.block(node.body)

    def _suppressed(self, node: ast.expr) -> list[str]:
        """What ``contextlib.suppress`` and its like catch."""
        if not isinstance(node, ast.Call):
            return []
        with self.at_rest():
            functions = self.refer(node.func)
            if not any(isinstance(function, Foreign) and function.path in _CATCHING for function in functions):
                return []
            return [name for each in node.args for name in guards.exception_names(self.refer(each), each)]

    def _try(self, node: ast.Try) -> None:
        context, scope = self.findings.context, self.scope
        caught = [self._caught(handler) for handler in node.handlers]
        mends = [
            names for names, handler in zip(caught, node.handlers, strict=True) if not guards.gives_up(handler.body)
        ]
        protecting = guards.guards_of(name for names in mends for name in names)
        length = len(self.findings)
        scope.enter_branch()
        with self.at(context.catching((name for names in caught for name in names), protecting)):
            self.block(node.body)
        uses, tried = self.findings.since(length), scope.changed()
        self.block(node.orelse)
        tried_well = node.orelse or node.body
        changes = scope.leave_branch()
        after = [changes] if guards.goes_on(tried_well) else []
        rest = context
        for names, handler in zip(caught, node.handlers, strict=True):
            scope.enter_branch()
            scope.merge([{}, tried])
            if handler.name:
                scope.bind(handler.name, ())
            falling_back = context.falling_back(_failing(uses, guards.guards_of(names)))
            with self.at(falling_back):
                self.block(handler.body)
            changes = scope.leave_branch()
            if guards.goes_on(handler.body):
                after.append(changes)
                rest = falling_back
        scope.merge(after)
        self.block(node.finalbody)
        if guards.steps_aside(tried_well):
            self.findings.context = rest

    def _caught(self, handler: ast.ExceptHandler) -> list[str]:
        """The dotted names of what a handler catches."""
        if handler.type is None:
            return ["BaseException"]
        types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return [
            name for each in types for name in guards.exception_names(self.check_classes(each, UseKind.CATCH), each)
        ]

    def _match(self, node: ast.Match) -> None:
        subject = self.evaluate(node.subject)
        after: list[Changes] = [{}]
        for case in node.cases:
            self.scope.enter_branch()
            self._pattern(case.pattern, subject)
            if case.guard is not None:
                self.evaluate(case.guard)
            self.block(case.body)
            changes = self.scope.leave_branch()
            after += [changes] if guards.goes_on(case.body) else []
        self.scope.merge(after)

    def _pattern(self, node: ast.pattern, subject: Values) -> None:
        """Bind what a pattern takes; a class in it is checked for."""
        match node:
            case ast.MatchClass():
                self.check_classes(node.cls)
                for each in (*node.patterns, *node.kwd_patterns):
                    self._pattern(each, ())
            case ast.MatchAs(pattern=ast.pattern() as inner, name=str(name)):
                self._pattern(inner, subject)
                self.scope.bind(name, self._instances_of(inner))
            case ast.MatchAs(name=str(name)):
                self.scope.bind(name, subject)
            case ast.MatchStar(name=str(name)):
                self.scope.bind(name, ())
            case ast.MatchValue():
                self.evaluate(node.value)
            case ast.MatchSequence() | ast.MatchOr():
                for each in node.patterns:
                    self._pattern(each, ())
            case ast.MatchMapping():
                self._pattern_of_mapping(node)

    def _pattern_of_mapping(self, node: ast.MatchMapping) -> None:
        for key, value in zip(node.keys, node.patterns, strict=True):
            self.evaluate(key)
            self._pattern(value, ())
        if node.rest:
            self.scope.bind(node.rest, ())

    def _instances_of(self, node: ast.pattern) -> Values:
        values = self.refer(node.cls) if isinstance(node, ast.MatchClass) else ()
        return tuple(Instance(value) for value in values if isinstance(value, Reached) and value.is_class)

    # --- bindings ---

    def _assign(self, node: ast.Assign) -> None:
        targets = [target for target in node.targets if isinstance(target, ast.Tuple | ast.List)]
        if (
            isinstance(node.value, ast.Call)
            and targets
            and not any(isinstance(e, ast.Starred) for e in targets[0].elts)
        ):
            values = self.call(node.value, unpacked=len(targets[0].elts))
        else:
            values = self.evaluate(node.value)
        for target in node.targets:
            self.assign(target, values, node.value)

    def _annotated_assign(self, node: ast.AnnAssign) -> None:
        is_local = self.scope.function is not None
        values = joined(
            self.evaluate(node.value) if node.value else (), self.annotated(node.annotation, is_lazy=is_local)
        )
        if self.scope.owner and not is_local and isinstance(node.target, ast.Name):
            self.scope.owner.fields.add(node.target.id)
        if node.value is not None or not is_local or isinstance(node.target, ast.Attribute):
            self.assign(node.target, values, node.value)

    def _augmented_assign(self, node: ast.AugAssign) -> None:
        values = self.evaluate(node.value)
        self._evaluate_target(node.target)
        if isinstance(node.target, ast.Name):
            held = self.scope.look_up(node.target.id) or ()
            kept = tuple(value for value in (*held, *values) if isinstance(value, Items))
            self.scope.bind(node.target.id, (Items(elements(kept)),) if kept else ())

    def _evaluate_target(self, node: ast.expr) -> None:
        """Note what is read where something is changed in place."""
        if isinstance(node, ast.Attribute | ast.Subscript):
            self.evaluate(node.value)

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.scope.set(target.id, None)
            else:
                self.evaluate(target)

    # --- imports ---

    def _import_module(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            if is_te(alias.name):
                self.findings.use(alias, Reached(alias.name), UseKind.IMPORT)
                self._bind(alias.asname or top, Reached(alias.name if alias.asname else top))
                continue
            location = self.project.module(alias.name, self.location)
            if location is None:
                self._bind(alias.asname or top, Foreign(alias.name if alias.asname else top))
            else:
                for _ in range(0 if alias.asname else alias.name.count(".")):
                    location = location.rpartition("/")[0]
                self._bind(alias.asname or top, OwnModule(location))

    def _import_names(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        if module == "__future__":
            self.are_lazy |= any(alias.name == "annotations" for alias in node.names)
        for alias in node.names:
            if alias.name == "*":
                self._import_star(alias, module)
            elif is_te(module):
                value = Reached(f"{module}.{alias.name}")
                self.findings.use(alias, value, UseKind.IMPORT)
                self._bind(alias.asname or alias.name, value)
            else:
                values = self.project.taken(module, alias.name, self.location)
                if values is None:
                    values = () if node.level else (Foreign(f"{module}.{alias.name}"),)
                self._bind(alias.asname or alias.name, *values)

    def _bind(self, name: str, *values: Value) -> None:
        self.scope.bind(name, self.findings.context.bound(values))

    def _import_star(self, alias: ast.alias, module: str) -> None:
        location = self.project.module(module, self.location)
        if is_te(module):
            self.findings.use(alias, Reached(module), UseKind.STAR)
            self._add_star(alias, Reached(module))
        elif location is None:
            self._add_star(alias, Foreign(module))
        else:
            for name in self._exported(location):
                values = self.project.member(location, name)
                if name == "*":
                    self._add_star(alias, *values)
                else:
                    self.scope.bind(name, values)

    def _add_star(self, alias: ast.alias, *modules: Value) -> None:
        """Note modules of which all names are taken: which of them has a name is known where there is but one."""
        stars = joined(self.scope.values.get("*", ()), modules)
        self.scope.set("*", stars)
        if len(stars) > 1 and any(isinstance(each, Reached) for each in stars):
            self.findings.unread(alias, "names that come by * from one of several modules")

    def _exported(self, location: str) -> list[str]:
        """The names that ``*`` takes from a module of the user's."""
        names = self.project.names(location)
        chosen = texts(elements(self.project.member(location, "__all__"))) if "__all__" in names else []
        return chosen or [name for name in names if not name.startswith("_")]

    def _nothing(self, node: ast.stmt) -> None:
        pass

    def _expression(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring names what it likes
            self.evaluate(node.value)

    _EXECUTORS: ClassVar[dict[type[ast.stmt], Callable[..., None]]] = {
        ast.Expr: _expression,
        ast.If: _if,
        ast.While: _while,
        ast.For: _for,
        ast.AsyncFor: _for,
        ast.With: _with,
        ast.AsyncWith: _with,
        ast.Try: _try,
        ast.TryStar: _try,
        ast.Match: _match,
        ast.Assign: _assign,
        ast.AnnAssign: _annotated_assign,
        ast.AugAssign: _augmented_assign,
        ast.Delete: _delete,
        ast.Import: _import_module,
        ast.ImportFrom: _import_names,
        ast.FunctionDef: Definitions.define_function,
        ast.AsyncFunctionDef: Definitions.define_function,
        ast.ClassDef: Definitions.define_class,
        ast.Return: Definitions.return_from,
        ast.Global: _nothing,
        ast.Nonlocal: _nothing,
        ast.Pass: _nothing,
    }


def _failing(uses: Iterable[Use], caught: set[Guard]) -> Iterable[str]:
    """Paths whose failure leads to a handler; none where something else can have led there."""
    tells = caught <= _MISFITS or {use.kind for use in uses} <= _OF_NAMES
    return (use.path for use in uses) if caught and tells else ()

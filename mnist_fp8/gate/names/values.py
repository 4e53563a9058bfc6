"""What names and values stand for, by griffe's objects."""

import griffe

from mnist_fp8.gate.names.source import Expression, Named, is_attribute, is_class, is_import


def final(named: Named) -> Named:
    """What a name stands for in the end; where that is no part of what was read, the last import on the way."""
    seen: set[str] = set()
    while named.path not in seen:
        seen.add(named.path)
        try:
            named = named.final_target if is_import(named) else referred(named) or named
        except griffe.AliasResolutionError as error:
            return error.alias
        except griffe.CyclicAliasError:
            return named
    return named


def referred(named: Named) -> Named | None:
    """What an attribute's value names, if it is within Transformer Engine."""
    return looked_up(named.value, named) if is_attribute(named) else None


def looked_up(value: Expression, user: griffe.Object) -> Named | None:
    """What a value is the name of, within Transformer Engine; a member of an enumeration is more than its value."""
    if value is None or isinstance(value, str) or not str(value).replace(".", "").isidentifier():
        return None
    found = member_at(value.canonical_path, user)
    is_member = found and found.parent and is_class(found.parent) and is_enumeration(found.parent)
    return None if is_member else found


def member_at(path: str, user: Named) -> Named | None:
    """What lies at a path within Transformer Engine."""
    try:
        return user.modules_collection.get_member(path)
    except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None


def is_enumeration(cls: griffe.Class) -> bool:
    """Whether a class is an enumeration."""
    return any(last(base).endswith(("Enum", "Flag")) for each in mro(cls) for base in each.bases)


def text(value: Expression, user: griffe.Object) -> str:
    """The source of a value; of a constant's name the constant, which may change while the name stays."""
    found = looked_up(value, user)
    constant = final(found) if found else user
    if found and is_attribute(constant) and isinstance(constant.value, str):
        return constant.value
    return "" if value is None else str(value)


def last(expression: griffe.Expr | str) -> str:
    """The last part of a name in an expression, as it was called where it was imported from."""
    return dotted(expression).rpartition(".")[2]


def dotted(expression: griffe.Expr | str) -> str:
    """The path of a name, or of what is called or subscripted, as it was imported."""
    return expression if isinstance(expression, str) else expression.canonical_path


def mro(cls: griffe.Class) -> list[griffe.Class]:
    """The class and its bases within Transformer Engine."""
    try:
        return [cls, *cls.mro()]
    except ValueError:  # such as a class that is named like the imported class that it derives from
        return [cls]


def bases(cls: griffe.Class) -> tuple[str, ...]:
    """The paths of the base classes, where they are defined or as they are imported."""
    found = []
    for base in cls.bases:
        within = looked_up(base, cls)
        found.append(dotted(base) if within is None else final_path(within))
    return tuple(found)


def final_path(named: Named) -> str:
    """The path of what a name stands for in the end."""
    found = final(named)
    return found.target_path if is_import(found) else found.path

"""The public part of the names of a Transformer Engine, with what users notice of each.

In a class these are methods, ``__call__``, properties and class attributes, such as the members of an enumeration,
inherited ones too: they stay public if a release moves them to another base class. A name that comes from another
distribution is an attribute; its value is the path that it comes from.
"""

from collections.abc import Mapping, Sequence

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.record.entries import Signature
from mnist_fp8.record.names import PACKAGE, Definition, Found, Names


def public_api(names: Names) -> dict[str, Signature]:
    """The signature of each public name by its dotted path, sorted.

    Raises:
        ConfigError: a module could not be read, so that its names would seem to be gone.
    """
    for path, reason in names.unread.items():
        if _is_unread_module(names, path):
            raise ConfigError(f"{path} {reason}")
    api: dict[str, Signature] = {}
    for path in names.public:
        found = names.find(path)
        if found is not None:
            mro = [names.members.get(cls, {}) for cls in names.mro(found.path)]
            api[path] = _signature(found, mro)
            for members in reversed(mro) if api[path].what == "class" else ():
                shown = {name: each.signature for name, each in members.items() if _is_shown(name, each.signature)}
                api |= {f"{path}.{name}": _as_written(member) for name, member in shown.items()}
    return dict(sorted(api.items()))


def _is_unread_module(names: Names, path: str) -> bool:
    """Whether an unread path is that of a module of Transformer Engine for JAX, of which nothing is known then."""
    is_known = path in names.definitions or path in names.aliases
    return not is_known and f"{path}.".startswith((f"{PACKAGE}.jax.", f"{PACKAGE}.common."))


def _is_shown(name: str, member: Signature) -> bool:
    is_public = not name.startswith("_") or name == "__call__"
    return is_public and (
        member.what in {"method", "property", "member"} or bool(member.what == "attribute" and member.value)
    )


def _signature(found: Found, mro: Sequence[Mapping[str, Definition]]) -> Signature:
    """The signature of a public name.

    Args:
        found: where it leads.
        mro: of a class, the members of each of its classes, the nearest first.
    """
    if found.definition is None:
        return Signature("attribute", value=found.path)
    signature = _as_written(found.definition.signature)
    if signature.what != "class" or any("__init__" in members for members in mro):
        return signature
    fields = {name for members in mro for name, member in members.items() if member.signature.what == "field"}
    shown = (each for each in signature.parameters if each.name in fields and not each.name.startswith("_"))
    return Signature("class", tuple(shown))  # what Flax adds to each module is left out


def _as_written(signature: Signature) -> Signature:
    """What is set to a value as that value, however it is called."""
    if signature.value or signature.what in {"member", "property"}:
        return Signature("attribute", value=signature.value)
    return signature

"""What is one for a whole process, so that programs without Transformer Engine notice when an import changes it."""

import atexit
import contextlib
import decimal
import faulthandler
import gc
import hashlib
import locale
import logging
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax._src import xla_bridge

State = Mapping[str, Mapping[str, object]]
"""What there is, by kind and name. A function that is replaced is another object."""
LIBRARIES = "libraries"
_OURS = ("transformer_engine", "mnist_fp8", "__main__")
_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))
_GONE = object()
_CATEGORIES = (DeprecationWarning, FutureWarning, ImportWarning, RuntimeWarning, UserWarning)
_RAISED_IN = ("__main__", "jax", "flax.linen", "numpy")
_NEW_LOGGER = "level 0"


def state() -> State:
    """What there is now. JAX is not started by looking."""
    return {
        "JAX configuration": {name: str(value) for name, value in jax.config.values.items()},
        "JAX": {"has started": xla_bridge.backends_are_initialized()},  # its public functions would start it
        "environment variables": dict(os.environ),
        "warning filters": _warning_filters(),
        "logging": _loggers(),
        "signal handlers": dict(_signal_handlers()),
        "threads": dict(_threads()),
        "exit handlers": {"number": atexit._ncallbacks()},  # noqa: SLF001 - nothing public says it
        "import system": dict(_import_system()),
        "settings": _settings(),
        LIBRARIES: dict(_of_libraries()),
    }


def handle_signals_as_in_a_terminal() -> None:
    """Handle what a shell has its background jobs ignore: an import that ignores it as well has to show."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def changes(before: State, after: State) -> Iterator[tuple[str, str, str]]:
    """What differs: its kind, its name, and what is there now."""
    for kind, old in before.items():
        new = after[kind]
        for name in {**old, **new}:
            was, now = old.get(name, _GONE), new.get(name, _GONE)
            if not _are_same(was, now) and (was is not _GONE or kind != LIBRARIES or _is_put_there(name, now)):
                yield kind, name, "gone" if now is _GONE else named(now)


def _are_same(was: object, now: object) -> bool:
    if isinstance(was, tuple) and isinstance(now, tuple):
        return len(was) == len(now) and all(map(_are_same, was, now))
    return was is now or (type(was) is type(now) and isinstance(was, _PLAIN) and was == now)


def named(value: object) -> str:
    """What something is called, without where it lies in memory; numbers and words are themselves."""
    if isinstance(value, tuple) and value and isinstance(value[0], types.FunctionType):
        value = value[0]
    if isinstance(value, _PLAIN):
        return str(value)
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{name}" if name else type(value).__qualname__


# --- Python --------------------------------------------------------------------------------------------------------


def _warning_filters() -> Mapping[str, object]:
    """Filters in force, but those for Transformer Engine's own modules; and what becomes of the usual warnings."""
    texts = {
        " ".join(filter(None, [action, getattr(category, "__name__", ""), _text(message), _text(module)])): "in force"
        for action, message, category, module, _ in warnings.filters
        if not _text(module).startswith(_OURS)
    }
    usual = {f"{category.__name__} in {module}": _action(category, module)
             for category in _CATEGORIES for module in _RAISED_IN}  # fmt: skip
    return texts | usual


def _text(pattern: re.Pattern[str] | str | None) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern or ""


def _action(category: type[Warning], module: str) -> str:
    """What the filters do to a warning without words."""
    for action, message, kind, pattern, _ in warnings.filters:
        if not _text(message) and issubclass(category, kind) and re.match(_text(pattern), module):
            return action
    return "default"


def _loggers() -> Mapping[str, object]:
    """Loggers that are not as Python makes them, but Transformer Engine's own."""
    made = {name: logger for name, logger in logging.root.manager.loggerDict.items() if not name.startswith(_OURS)}
    states = {name: _logger(logger) for name, logger in made.items() if isinstance(logger, logging.Logger)}
    return {
        **{name: text for name, text in states.items() if text != _NEW_LOGGER},
        "root": _logger(logging.root),
        "disabled up to level": logging.root.manager.disable,
        "class of loggers": named(logging.getLoggerClass()),
        "last resort": logging.lastResort.level if logging.lastResort else None,
    }


def _logger(logger: logging.Logger) -> str:
    switches = [word for word, is_on in (("disabled", logger.disabled), ("ends here", not logger.propagate)) if is_on]
    handlers = [f"{type(each).__name__} of level {each.level}" for each in logger.handlers]
    return ", ".join([f"level {logger.level}", *switches, *handlers, *(named(each) for each in logger.filters)])


def _signal_handlers() -> Iterator[tuple[str, object]]:
    for number in sorted(signal.valid_signals()):
        with contextlib.suppress(ValueError):  # a real-time signal without a name
            handler = signal.getsignal(number)
            yield signal.Signals(number).name, handler.name if isinstance(handler, signal.Handlers) else named(handler)
    yield "blocked", str(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def _threads() -> Iterator[tuple[str, object]]:
    yield from ((thread.name, "runs") for thread in threading.enumerate())
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        yield "of the process", len(list(tasks.iterdir()))
        children = (task / "children" for task in tasks.iterdir())
        yield "processes", sum(len(file.read_text().split()) for file in children if file.exists())


def _import_system() -> Iterator[tuple[str, object]]:
    yield from ((f"sys.path {place}", "there") for place in sys.path)
    for name in ("meta_path", "path_hooks"):
        yield from ((f"sys.{name} {named(each)}", "there") for each in getattr(sys, name))


def _settings() -> Mapping[str, object]:
    umask = os.umask(0)
    os.umask(umask)
    limits = (name for name in dir(resource) if name.startswith("RLIMIT_"))
    return {
        **{name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "trace": named(sys.gettrace()),
        "profile": named(sys.getprofile()),
        "standard output": named(sys.stdout),
        "standard error": named(sys.stderr),
        "garbage collection": (gc.isenabled(), *gc.get_threshold(), gc.get_debug(), gc.get_freeze_count() > 0),
        "callbacks of garbage collection": tuple(map(named, gc.callbacks)),
        "fault handler": faulthandler.is_enabled(),
        "working folder": str(Path.cwd()),
        "umask": umask,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "start method of multiprocessing": multiprocessing.get_start_method(allow_none=True),
        "time limit of sockets": socket.getdefaulttimeout(),
        "decimal": str(decimal.getcontext()),
        "random": _digest(random.getstate()),
        "numpy.random": _digest(np.random.get_state()),  # noqa: NPY002 - the generator that all of a process share
        "numpy errors": str(np.geterr()),
        "numpy printing": str(np.get_printoptions()),
    }


def _digest(numbers: object) -> str:
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:12]


# --- libraries -----------------------------------------------------------------------------------------------------


def _of_libraries() -> Iterator[tuple[str, object]]:
    """Each module, with its functions, classes, methods and plain values, and the functions in its tables."""
    for name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType) or name.startswith(_OURS):
            continue
        yield name, module
        for attribute, value in list(vars(module).items()):
            key = f"{name}.{attribute}"
            yield from _of_attribute(key, attribute, value)
            if isinstance(value, type) and value.__module__ == name:
                for member, own in list(vars(value).items()):
                    yield from _of_attribute(f"{key}.{member}", member, own)
            elif type(value) is dict and attribute != "__builtins__":
                yield from ((f"{key}[{item!r}]", own) for item, own in list(value.items()))


def _of_attribute(key: str, attribute: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, types.FunctionType):
        yield key, (value, value.__code__, id(value.__defaults__), id(value.__kwdefaults__))
    elif not attribute.startswith("_") or callable(value) or isinstance(value, (property, staticmethod, classmethod)):
        yield key, value


def _is_put_there(name: str, value: object) -> bool:
    """Whether something new was put into a library, and is no part of one that was imported as well."""
    of = value[0] if isinstance(value, tuple) and value else value
    is_ours = str(getattr(of, "__module__", "")).startswith("transformer_engine")
    return "[" not in name and (is_ours or name.startswith(("sys.", "builtins.")))

"""What Python imports when it starts a program of ``mnist-fp8 run``, in an environment that was made for a release.

The program imports Transformer Engine as it would anywhere, ``import transformer_engine.jax`` first: the host run is
prepared then. Transformer Engine, JAX and Flax are those of the environment, also where the program lies beside others,
as in a checkout of Transformer Engine.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_SUBJECT, _NATIVE = "transformer_engine", "transformer_engine_jax"
_OF_THE_ENVIRONMENT = (_SUBJECT, "jax", "jaxlib", "flax")
_PATH = tuple(sys.path)
"""As it is before the program's own folder comes first."""


class _Finder:
    """Finds packages where the environment has them."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if path is not None or name not in _OF_THE_ENVIRONMENT:
            return None
        spec = PathFinder.find_spec(name, _PATH)
        if spec is not None and name == _SUBJECT and spec.origin is not None:
            spec.loader = _HostLoader(name, spec.origin)
        return spec


class _HostLoader(SourceFileLoader):
    """Has mnist_fp8 load Transformer Engine, unless that is what is going on."""

    _is_loaded = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if _NATIVE in sys.modules:  # the stand-in of the host run
            return super().create_module(spec)
        from mnist_fp8 import te  # noqa: PLC0415 - it imports JAX, which the program need not do

        try:
            te.engine()
        except te.TeUnavailableError as error:
            raise ImportError(str(error), name=_SUBJECT) from error
        self._is_loaded = True
        return sys.modules[_SUBJECT]

    def exec_module(self, module: ModuleType) -> None:
        if not self._is_loaded:
            super().exec_module(module)


sys.meta_path.insert(0, _Finder)

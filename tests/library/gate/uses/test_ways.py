"""Each way of using a name of Transformer Engine is found, and nothing else is.

A use is written ``line KIND path(call)`` without ``transformer_engine.``: a call as the number of its arguments by
position and the names of others, ``*`` and ``**`` where more come. What protects it follows in brackets.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.gate.uses.use import Call, Use, UseKind
from mnist_fp8.record.entries import Parameter


def _call(call: Call) -> str:
    words = [str(call.positional), *call.keywords, *["*"] * call.has_args, *["**"] * call.has_kwargs]
    unpacked = "" if call.unpacked is None else f" to {call.unpacked}"
    return f"({', '.join(words)}{', ...' * call.is_partial}){unpacked}"


def _parameter(parameter: Parameter) -> str:
    kind = "" if parameter.kind == "either" else f"{parameter.kind} "
    return f"{kind}{parameter.name}{'' if parameter.default is None else f'={parameter.default}'}"


def brief(use: Use) -> str:
    """A use in one line."""
    words = [str(use.place.line), use.kind.name, use.path + (_call(use.call) if use.call else "")]
    if use.parameters:
        words[-1] += f"({', '.join(map(_parameter, use.parameters))})"
    if use.on_instance and use.kind is not UseKind.OVERRIDE:
        words.append("of instance")
    if use.guards:
        words.append(f"[{', '.join(sorted(guard.name for guard in use.guards))}]")
    if use.caught:
        words.append(f"catching {', '.join(use.caught)}")
    if use.optional:
        words.append(f"without {use.optional}")
    if use.fallback_for:
        words.append(f"if not {', '.join(use.fallback_for)}")
    return " ".join(words).replace("transformer_engine.", "")


WAYS = {
    # --- imports ---
    "a module": ("import transformer_engine.jax", ["1 IMPORT jax"]),
    "the package itself": ("import transformer_engine", ["1 IMPORT transformer_engine"]),
    "a module that is named again": (
        """
        import transformer_engine.jax as te
        te.flax.DenseGeneral(features=8)
        """,
        ["2 IMPORT jax", "3 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "a chain from the top": (
        """
        import transformer_engine.jax.flax
        transformer_engine.jax.flax.DenseGeneral(8)
        """,
        ["2 IMPORT jax.flax", "3 CALL jax.flax.DenseGeneral(1)"],
    ),
    "several names, one under another name": (
        """
        from transformer_engine.jax.attention import (
            AttnMaskType,
            SequenceDescriptor as SD,
        )
        SD.from_seqlens(lengths)
        """,
        [
            "3 IMPORT jax.attention.AttnMaskType",
            "4 IMPORT jax.attention.SequenceDescriptor",
            "6 CALL jax.attention.SequenceDescriptor.from_seqlens(1)",
        ],
    ),
    "a package that looks alike": ("import transformer_engine_torch, transformer_enginex.jax", []),
    "a name in a comment, a docstring and a sentence": (
        '''
        """transformer_engine.jax.flax.DenseGeneral is what this needs."""
        # transformer_engine.jax.flax.DenseGeneral
        print("see transformer_engine.jax.flax.DenseGeneral")
        def f():
            """transformer_engine.jax.flax"""
        ''',
        [],
    ),
    "an import in a function": (
        """
        def build():
            from transformer_engine.jax.flax import DenseGeneral
            return DenseGeneral(features=1)
        """,
        ["3 IMPORT jax.flax.DenseGeneral", "4 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "an import in a function is not known outside": (
        """
        def build():
            from transformer_engine.jax.flax import DenseGeneral
        DenseGeneral(features=1)
        """,
        ["3 IMPORT jax.flax.DenseGeneral"],
    ),
    "a star": (
        """
        from transformer_engine.jax.flax import *
        DenseGeneral(features=1)
        print(len([]))
        """,
        ["2 STAR jax.flax", "3 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "a star beside names that are bound": (
        """
        from transformer_engine.jax.flax import *
        from other import DenseGeneral
        DenseGeneral(features=1)
        """,
        ["2 STAR jax.flax"],
    ),
    "one star of several": (
        """
        from transformer_engine.jax.flax import *
        from other import *
        DenseGeneral(features=1)
        """,
        ["2 STAR jax.flax"],
    ),
    "an import that may fail": (
        """
        try:
            from transformer_engine.jax.attention import fused_attn
        except ImportError:
            fused_attn = None
        if fused_attn is not None:
            fused_attn(q)
        """,
        [
            "3 IMPORT jax.attention.fused_attn [IMPORT_ERROR]",
            "6 READ jax.attention.fused_attn without jax.attention.fused_attn",
            "7 CALL jax.attention.fused_attn(1) [PROBE] without jax.attention.fused_attn",
        ],
    ),
    "an import with a fallback": (
        """
        try:
            from transformer_engine.jax.attention import fused_attn
        except (ImportError, ModuleNotFoundError):
            from transformer_engine.jax.fused_attn import fused_attn
        fused_attn(q)
        """,
        [
            "3 IMPORT jax.attention.fused_attn [IMPORT_ERROR]",
            "5 IMPORT jax.fused_attn.fused_attn if not jax.attention.fused_attn",
            "6 CALL jax.attention.fused_attn(1) without jax.attention.fused_attn",
            "6 CALL jax.fused_attn.fused_attn(1) if not jax.attention.fused_attn",
        ],
    ),
    "an import whose failure is raised again": (
        """
        try:
            from transformer_engine.jax.attention import fused_attn
        except ImportError as error:
            raise RuntimeError("install it") from error
        fused_attn(q)
        """,
        ["3 IMPORT jax.attention.fused_attn", "6 CALL jax.attention.fused_attn(1)"],
    ),
    "an import for type checkers": (
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from transformer_engine.jax.attention import SequenceDescriptor
        def f(x: "SequenceDescriptor"): return x.seqlens
        """,
        [
            "4 IMPORT jax.attention.SequenceDescriptor [TYPE_CHECKING]",
            "5 READ jax.attention.SequenceDescriptor [TYPE_CHECKING]",
            "5 READ jax.attention.SequenceDescriptor.seqlens of instance [TYPE_CHECKING]",
        ],
    ),
    "an import by importlib": (
        """
        import importlib
        attention = importlib.import_module("transformer_engine.jax.attention")
        attention.fused_attn(q)
        """,
        ["3 DYNAMIC jax.attention", "4 CALL jax.attention.fused_attn(1)"],
    ),
    "an import relative to a package": (
        """
        from importlib import import_module
        import_module(".attention", package="transformer_engine.jax").fused_attn(q)
        """,
        ["3 DYNAMIC jax.attention", "3 CALL jax.attention.fused_attn(1)"],
    ),
    "an import by a constant": (
        """
        import importlib
        NAME = "transformer_engine.jax" + ".dense"
        def load():
            return importlib.import_module(NAME)
        load().dense(x, kernel)
        """,
        ["5 DYNAMIC jax.dense", "6 CALL jax.dense.dense(2)"],
    ),
    "an import by __import__": (
        """
        te = __import__("transformer_engine.jax")
        te.jax.autocast()
        """,
        ["2 DYNAMIC jax", "3 CALL jax.autocast(0)"],
    ),
    "an import that a test can do without": (
        """
        import pytest
        te = pytest.importorskip("transformer_engine.jax")
        te.autocast()
        """,
        ["3 DYNAMIC jax [PROBE] without jax", "4 CALL jax.autocast(0) without jax"],
    ),
    "loaded modules": (
        """
        import sys
        sys.modules["transformer_engine.jax"].autocast()
        """,
        ["3 DYNAMIC jax", "3 CALL jax.autocast(0)"],
    ),
    # --- calls ---
    "arguments of all kinds": (
        """
        from transformer_engine.jax import dense
        dense.dense(x, kernel, *rest, bias=None, **options)
        """,
        ["2 IMPORT jax.dense", "3 CALL jax.dense.dense(2, bias, *, **)"],
    ),
    "arguments that are written out": (
        """
        from transformer_engine.jax import dense
        options = dict(bias=None)
        more = {"quantizer_set": q, **options}
        dense.dense(*(x, kernel), **{"contracting_dims": d}, **more)
        """,
        ["2 IMPORT jax.dense", "5 CALL jax.dense.dense(2, contracting_dims, quantizer_set, bias)"],
    ),
    "options that may have been changed": (
        """
        from transformer_engine.jax import dense
        options = dict(bias=None)
        options["quantizer_set"] = q
        dense.dense(x, kernel, **options)
        """,
        ["2 IMPORT jax.dense", "5 CALL jax.dense.dense(2, **)"],
    ),
    "options that somebody else may have changed": (
        """
        from transformer_engine.jax import dense
        options = {"bias": None}
        complete(options)
        dense.dense(x, kernel, **options)
        """,
        ["2 IMPORT jax.dense", "5 CALL jax.dense.dense(2, **)"],
    ),
    "a result that is taken apart": (
        """
        from transformer_engine.jax.router import fused_topk
        probabilities, routing = fused_topk(x)
        first, *rest = fused_topk(x)
        """,
        ["2 IMPORT jax.router.fused_topk", "3 CALL jax.router.fused_topk(1) to 2", "4 CALL jax.router.fused_topk(1)"],
    ),
    "a partial": (
        """
        from functools import partial
        from transformer_engine.jax.attention import fused_attn
        attend = partial(fused_attn, q, is_training=True)
        def step(): return attend(bias, mask=m)
        """,
        [
            "3 IMPORT jax.attention.fused_attn",
            "4 CALL jax.attention.fused_attn(1, is_training, ...)",
            "5 CALL jax.attention.fused_attn(2, is_training, mask)",
        ],
    ),
    "wrapped by JAX": (
        """
        import jax
        from transformer_engine.jax.dense import dense
        jax.jit(dense)(x, kernel)
        """,
        ["3 IMPORT jax.dense.dense", "4 CALL jax.dense.dense(2)", "4 READ jax.dense.dense"],
    ),
    "contexts": (
        """
        import transformer_engine.jax as te
        from transformer_engine.jax.sharding import MeshResource, global_shard_guard
        with te.autocast(enabled=True), global_shard_guard(MeshResource("data")) as guard:
            pass
        """,
        [
            "2 IMPORT jax",
            "3 IMPORT jax.sharding.MeshResource",
            "3 IMPORT jax.sharding.global_shard_guard",
            "4 CALL jax.autocast(0, enabled)",
            "4 CALL jax.sharding.global_shard_guard(1)",
            "4 CALL jax.sharding.MeshResource(1)",
        ],
    ),
    "what is caught around a call": (
        """
        import transformer_engine.jax as te
        try:
            te.autocast()
        except (ValueError, te.RecipeError):
            raise
        """,
        [
            "2 IMPORT jax",
            "4 CALL jax.autocast(0) catching ValueError, jax.RecipeError",
            "5 CATCH jax.RecipeError",
        ],
    ),
    "awaited, in a lambda, and in a comprehension": (
        """
        import transformer_engine.jax as te
        f = lambda x: te.one(x)
        [te.two(y) for y in te.three() if te.four]
        {k: te.five for k in range(3)}
        """,
        [
            "2 IMPORT jax",
            "3 CALL jax.one(1)",
            "4 CALL jax.two(1)",
            "4 CALL jax.three(0)",
            "4 READ jax.four",
            "5 READ jax.five",
        ],
    ),
    # --- values that flow ---
    "an instance": (
        """
        from transformer_engine.jax.flax import DotProductAttention
        attention = DotProductAttention(head_dim=64)
        attention.apply({}, q)
        attention(q, k, v, mask=m)
        """,
        [
            "2 IMPORT jax.flax.DotProductAttention",
            "3 CALL jax.flax.DotProductAttention(0, head_dim)",
            "4 CALL jax.flax.DotProductAttention.__call__(1) of instance",
            "4 CALL jax.flax.DotProductAttention.apply(2) of instance",
            "5 CALL jax.flax.DotProductAttention.__call__(3, mask) of instance",
        ],
    ),
    "a module that Flax calls": (
        """
        from functools import partial
        from transformer_engine.jax.flax import DotProductAttention
        attend = partial(DotProductAttention().apply, {}, mutable=["batch"])
        y, state = attend(q, k, mask=m)
        variables = DotProductAttention().init(rngs={}, method="other")
        """,
        [
            "3 IMPORT jax.flax.DotProductAttention",
            "4 CALL jax.flax.DotProductAttention(0)",
            "4 CALL jax.flax.DotProductAttention.apply(1, mutable, ...) of instance",
            "5 CALL jax.flax.DotProductAttention.__call__(2, mask) of instance",
            "5 CALL jax.flax.DotProductAttention.apply(3, mutable, mask) to 2 of instance",
            "6 CALL jax.flax.DotProductAttention(0)",
            "6 CALL jax.flax.DotProductAttention.init(0, rngs, method) of instance",
        ],
    ),
    "an instance at once": (
        """
        from transformer_engine.jax.flax import LayerNorm
        y = LayerNorm()(x)
        """,
        [
            "2 IMPORT jax.flax.LayerNorm",
            "3 CALL jax.flax.LayerNorm(0)",
            "3 CALL jax.flax.LayerNorm.__call__(1) of instance",
        ],
    ),
    "an attribute that another method set": (
        """
        from flax import linen as nn
        from transformer_engine.jax.flax import DotProductAttention
        class Attention(nn.Module):
            def __call__(self, q): return self.inner(q)
            def setup(self): self.inner = DotProductAttention(head_dim=64)
        """,
        [
            "3 IMPORT jax.flax.DotProductAttention",
            "5 CALL jax.flax.DotProductAttention.__call__(1) of instance",
            "6 CALL jax.flax.DotProductAttention(0, head_dim)",
        ],
    ),
    "a field by its annotation, and by its default": (
        """
        from typing import Any, Optional
        from transformer_engine.jax.flax import DenseGeneral, LayerNorm
        class Block:
            norm: Optional[LayerNorm] = None
            dense: Any = DenseGeneral
            def run(self, x): return self.norm(self.dense(features=1)(x))
        """,
        [
            "3 IMPORT jax.flax.DenseGeneral",
            "3 IMPORT jax.flax.LayerNorm",
            "5 READ jax.flax.LayerNorm",
            "6 READ jax.flax.DenseGeneral",
            "7 CALL jax.flax.LayerNorm.__call__(1) of instance",
            "7 CALL jax.flax.DenseGeneral(0, features)",
            "7 CALL jax.flax.DenseGeneral.__call__(1) of instance",
        ],
    ),
    "a parameter by its annotation": (
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        def f(d: SequenceDescriptor, e: "SequenceDescriptor | None"):
            d.get_seqlens_and_offsets(t)
            return e.seqlens
        """,
        [
            "2 IMPORT jax.attention.SequenceDescriptor",
            "3 READ jax.attention.SequenceDescriptor",
            "3 READ jax.attention.SequenceDescriptor [TYPE_CHECKING]",
            "4 CALL jax.attention.SequenceDescriptor.get_seqlens_and_offsets(1) of instance",
            "5 READ jax.attention.SequenceDescriptor.seqlens of instance",
        ],
    ),
    "annotations that are never evaluated": (
        """
        from __future__ import annotations
        from transformer_engine.jax.attention import SequenceDescriptor
        def f(d: SequenceDescriptor) -> list[SequenceDescriptor]: ...
        """,
        [
            "3 IMPORT jax.attention.SequenceDescriptor",
            "4 READ jax.attention.SequenceDescriptor [TYPE_CHECKING]",
            "4 READ jax.attention.SequenceDescriptor [TYPE_CHECKING]",
        ],
    ),
    "an annotation of a local variable": (
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        def f():
            d: SequenceDescriptor = make()
            d.seqlens
        """,
        [
            "2 IMPORT jax.attention.SequenceDescriptor",
            "4 READ jax.attention.SequenceDescriptor [TYPE_CHECKING]",
            "5 READ jax.attention.SequenceDescriptor.seqlens of instance",
        ],
    ),
    "a default of a parameter": (
        """
        import transformer_engine.jax as te
        def f(make=te.flax.DenseGeneral): return make(features=1)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "3 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "what a class method returns": (
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        d = SequenceDescriptor.from_seqlens(lengths)
        d.get_seqlens_and_offsets(t)
        """,
        [
            "2 IMPORT jax.attention.SequenceDescriptor",
            "3 CALL jax.attention.SequenceDescriptor.from_seqlens(1)",
            "4 CALL jax.attention.SequenceDescriptor.get_seqlens_and_offsets(1) of instance",
        ],
    ),
    "what a function of the user's returns": (
        """
        from transformer_engine.jax.flax import DotProductAttention
        def attention(): return make()
        def make(): return DotProductAttention()
        make()(q)
        """,
        [
            "2 IMPORT jax.flax.DotProductAttention",
            "4 CALL jax.flax.DotProductAttention(0)",
            "5 CALL jax.flax.DotProductAttention.__call__(1) of instance",
        ],
    ),
    "a property": (
        """
        from transformer_engine.jax.flax import LayerNorm
        class A:
            @property
            def norm(self): return LayerNorm()
            def run(self, x): return self.norm(x)
        """,
        [
            "2 IMPORT jax.flax.LayerNorm",
            "5 CALL jax.flax.LayerNorm(0)",
            "6 CALL jax.flax.LayerNorm.__call__(1) of instance",
        ],
    ),
    "a second name": (
        """
        import transformer_engine.jax as te
        Dense = te.flax.DenseGeneral
        Dense(features=1)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "4 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "one of two names": (
        """
        import transformer_engine.jax as te
        if fast:
            make = te.flax.DenseGeneral
        else:
            make = te.flax.LayerNormDenseGeneral
        make(features=1)
        """,
        [
            "2 IMPORT jax",
            "4 READ jax.flax.DenseGeneral",
            "6 READ jax.flax.LayerNormDenseGeneral",
            "7 CALL jax.flax.DenseGeneral(0, features)",
            "7 CALL jax.flax.LayerNormDenseGeneral(0, features)",
        ],
    ),
    "a name that is chosen from a table": (
        """
        import transformer_engine.jax as te
        LAYERS = {"dense": te.flax.DenseGeneral}
        def make(name): return LAYERS[name](features=1)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "4 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "two names at once": (
        """
        import transformer_engine.jax as te
        one, two = te.flax.DenseGeneral, 3
        one(features=1)
        two(features=1)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "4 CALL jax.flax.DenseGeneral(0, features)"],
    ),
    "a walrus": (
        """
        import transformer_engine.jax as te
        if (make := te.flax.DenseGeneral) and ready:
            make(1)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "4 CALL jax.flax.DenseGeneral(1)"],
    ),
    "members of enumerations": (
        """
        from transformer_engine.jax.attention import AttnMaskType
        print(AttnMaskType.CAUSAL_MASK, AttnMaskType.NO_MASK.value, AttnMaskType.PADDING_MASK.is_padding())
        """,
        [
            "2 IMPORT jax.attention.AttnMaskType",
            "3 READ jax.attention.AttnMaskType.CAUSAL_MASK",
            "3 READ jax.attention.AttnMaskType.NO_MASK",
            "3 READ jax.attention.AttnMaskType.PADDING_MASK",
            "3 CALL jax.attention.AttnMaskType.is_padding(0) of instance",
        ],
    ),
    "what Python gives to everything": (
        """
        import transformer_engine.jax as te
        print(te.flax.DenseGeneral.__name__, te.__file__)
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral", "3 READ jax"],
    ),
    "something that is replaced": (
        """
        import transformer_engine.jax as te
        te.flax.DenseGeneral = Mine
        """,
        ["2 IMPORT jax", "3 READ jax.flax.DenseGeneral"],
    ),
    # --- scopes ---
    "a parameter of the same name": (
        """
        import transformer_engine.jax as te
        def f(te): return te.flax.DenseGeneral(1)
        """,
        ["2 IMPORT jax"],
    ),
    "a local variable of the same name": (
        """
        import transformer_engine.jax as te
        def f():
            print(te.flax)
            te = other
        """,
        ["2 IMPORT jax"],
    ),
    "a name that is bound again": (
        """
        from transformer_engine.jax.flax import LayerNorm
        LayerNorm()
        class LayerNorm: pass
        LayerNorm(1)
        """,
        ["2 IMPORT jax.flax.LayerNorm", "3 CALL jax.flax.LayerNorm(0)"],
    ),
    "a name that is deleted": (
        """
        import transformer_engine.jax as te
        del te
        te.flax
        """,
        ["2 IMPORT jax"],
    ),
    "a global name": (
        """
        te = None
        def load():
            global te
            import transformer_engine.jax as te
        def use(): return te.autocast()
        """,
        ["5 IMPORT jax", "6 CALL jax.autocast(0)"],
    ),
    "a nonlocal name": (
        """
        import transformer_engine.jax as te
        def outer():
            make = None
            def choose():
                nonlocal make
                make = te.flax.DenseGeneral
            def use(): make(1)
        """,
        ["2 IMPORT jax", "7 READ jax.flax.DenseGeneral", "8 CALL jax.flax.DenseGeneral(1)"],
    ),
    "names of a class are no names of its methods": (
        """
        import transformer_engine.jax as te
        class A:
            make = te.flax.DenseGeneral
            first = make(1)
            def f(self): return make(2), self.make(3)
        """,
        [
            "2 IMPORT jax",
            "4 READ jax.flax.DenseGeneral",
            "5 CALL jax.flax.DenseGeneral(1)",
            "6 CALL jax.flax.DenseGeneral(1)",
        ],
    ),
    "variables of a comprehension": (
        """
        import transformer_engine.jax as te
        [te.flax for te in others]
        te.dense
        """,
        ["2 IMPORT jax", "4 READ jax.dense"],
    ),
    "a loop": (
        """
        import transformer_engine.jax as te
        for make in (te.flax.DenseGeneral, te.flax.LayerNorm):
            make(1)
        """,
        [
            "2 IMPORT jax",
            "3 READ jax.flax.DenseGeneral",
            "3 READ jax.flax.LayerNorm",
            "4 CALL jax.flax.DenseGeneral(1)",
            "4 CALL jax.flax.LayerNorm(1)",
        ],
    ),
    "patterns": (
        """
        from transformer_engine.common import recipe
        match chosen:
            case recipe.DelayedScaling(margin=m) as delayed:
                delayed.amax_history_len
            case recipe.Format.HYBRID:
                pass
        """,
        [
            "2 IMPORT common.recipe",
            "4 ISINSTANCE common.recipe.DelayedScaling",
            "5 READ common.recipe.DelayedScaling.amax_history_len of instance",
            "6 READ common.recipe.Format.HYBRID",
        ],
    ),
    # --- classes ---
    "a subclass": (
        """
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class Mine(TransformerEngineBase):
            def generate_quantizer_set(self, p="", *, groups: int = 1, **rest):
                return super().generate_quantizer_set(p)
            @staticmethod
            def make(a, /, b): ...
            def _own(self): self.generate_collective_op_set(1)
            def __private(self): self._own()
        """,
        [
            "2 IMPORT jax.flax.module.TransformerEngineBase",
            "3 SUBCLASS jax.flax.module.TransformerEngineBase",
            "4 OVERRIDE jax.flax.module.TransformerEngineBase.generate_quantizer_set(p='', keyword groups=1, ** rest)",
            "5 CALL jax.flax.module.TransformerEngineBase.generate_quantizer_set(1) of instance",
            "7 OVERRIDE jax.flax.module.TransformerEngineBase.make(positional a, b)",
            "8 OVERRIDE jax.flax.module.TransformerEngineBase._own",
            "8 CALL jax.flax.module.TransformerEngineBase.generate_collective_op_set(1) of instance",
        ],
    ),
    "a subclass of a subclass": (
        """
        import transformer_engine.jax as te
        class A(te.flax.DenseGeneral):
            def helper(self): ...
        class B(A):
            def setup(self):
                super(B, self).helper()
                super().setup()
        """,
        [
            "2 IMPORT jax",
            "3 SUBCLASS jax.flax.DenseGeneral",
            "4 OVERRIDE jax.flax.DenseGeneral.helper",
            "6 OVERRIDE jax.flax.DenseGeneral.setup",
            "8 CALL jax.flax.DenseGeneral.setup(0) of instance",
        ],
    ),
    "an instance of a subclass": (
        """
        import transformer_engine.jax as te
        class A(te.flax.DenseGeneral):
            mine: int = 3
            def call(self, x): return self.mine
        layer = A(features=1, mine=2)
        layer(x)
        layer.call(x)
        """,
        [
            "2 IMPORT jax",
            "3 SUBCLASS jax.flax.DenseGeneral",
            "5 OVERRIDE jax.flax.DenseGeneral.call(x)",
            "6 CALL jax.flax.DenseGeneral(0, features)",
            "7 CALL jax.flax.DenseGeneral.__call__(1) of instance",
        ],
    ),
    "a subclass with a constructor of its own": (
        """
        import transformer_engine.jax as te
        class A(te.flax.DenseGeneral):
            def __init__(self, size): super().__init__(features=size)
        A(3)
        """,
        [
            "2 IMPORT jax",
            "3 SUBCLASS jax.flax.DenseGeneral",
            "4 OVERRIDE jax.flax.DenseGeneral.__init__(size)",
            "4 CALL jax.flax.DenseGeneral.__init__(0, features) of instance",
        ],
    ),
    "checks of classes": (
        """
        from transformer_engine.common import recipe
        isinstance(r, (recipe.DelayedScaling, recipe.MXFP8BlockScaling)) or issubclass(c, recipe.Recipe)
        """,
        [
            "2 IMPORT common.recipe",
            "3 ISINSTANCE common.recipe.DelayedScaling",
            "3 ISINSTANCE common.recipe.MXFP8BlockScaling",
            "3 ISINSTANCE common.recipe.Recipe",
        ],
    ),
    "decorators": (
        """
        import transformer_engine.jax as te
        @te.one
        @te.two(3, x=4)
        def f(): ...
        """,
        ["2 IMPORT jax", "3 DECORATOR jax.one", "4 DECORATOR jax.two(1, x)"],
    ),
    # --- names in strings ---
    "getattr": (
        """
        import transformer_engine.jax as te
        getattr(te, "autocast")()
        """,
        ["2 IMPORT jax", "3 CALL jax.autocast(0)", "3 DYNAMIC jax.autocast"],
    ),
    "getattr with a default": (
        """
        import transformer_engine.jax as te
        autocast = getattr(te, "autocast", None)
        if autocast:
            autocast()
        else:
            te.fp8_autocast()
        """,
        [
            "2 IMPORT jax",
            "3 DYNAMIC jax.autocast [PROBE] without jax.autocast",
            "4 READ jax.autocast without jax.autocast",
            "5 CALL jax.autocast(0) [PROBE] without jax.autocast",
            "7 CALL jax.fp8_autocast(0) if not jax.autocast",
        ],
    ),
    "getattr with each of some names": (
        """
        import transformer_engine.jax as te
        for name in ("autocast", "fp8_autocast"):
            getattr(te, name)
        """,
        ["2 IMPORT jax", "4 DYNAMIC jax.autocast", "4 DYNAMIC jax.fp8_autocast"],
    ),
    "a name that is computed": (
        """
        import importlib
        import transformer_engine.jax as te
        getattr(te, prefix + "autocast")()
        importlib.import_module(f"transformer_engine.{prefix}")
        """,
        ["3 IMPORT jax"],
    ),
    "names that tests replace": (
        """
        from unittest import mock
        import transformer_engine.jax.attention as attention
        @mock.patch("transformer_engine.jax.attention.fused_attn")
        def test(monkeypatch):
            monkeypatch.setattr(attention, "make_mask", fake)
            with mock.patch.object(attention, "other"): ...
        """,
        [
            "3 IMPORT jax.attention",
            "4 TEXT jax.attention.fused_attn",
            "6 DYNAMIC jax.attention.make_mask",
            "7 DYNAMIC jax.attention.other",
        ],
    ),
    "a name in a table of strings": (
        """
        TARGET = {"_target_": "transformer_engine.jax.flax:DenseGeneral"}
        """,
        ["2 TEXT jax.flax.DenseGeneral"],
    ),
    # --- guards ---
    "a test of a name": (
        """
        import transformer_engine.jax as te
        if hasattr(te, "autocast"):
            te.autocast()
            te.flax.DenseGeneral()
        else:
            te.fp8_autocast()
        """,
        [
            "2 IMPORT jax",
            "3 DYNAMIC jax.autocast [PROBE] without jax.autocast",
            "4 CALL jax.autocast(0) [PROBE]",
            "5 CALL jax.flax.DenseGeneral(0)",
            "7 CALL jax.fp8_autocast(0) if not jax.autocast",
        ],
    ),
    "a test after which nothing follows": (
        """
        import transformer_engine.jax as te
        def f():
            if not hasattr(te, "autocast"):
                return te.fp8_autocast()
            return te.autocast()
        """,
        [
            "2 IMPORT jax",
            "4 DYNAMIC jax.autocast [PROBE] without jax.autocast",
            "5 CALL jax.fp8_autocast(0) if not jax.autocast",
            "6 CALL jax.autocast(0) [PROBE]",
        ],
    ),
    "a test in an expression": (
        """
        import transformer_engine.jax as te
        context = te.autocast() if hasattr(te, "autocast") else te.fp8_autocast()
        ready = hasattr(te, "moe") and te.moe()
        """,
        [
            "2 IMPORT jax",
            "3 CALL jax.autocast(0) [PROBE]",
            "3 DYNAMIC jax.autocast [PROBE] without jax.autocast",
            "3 CALL jax.fp8_autocast(0) if not jax.autocast",
            "4 DYNAMIC jax.moe [PROBE] without jax.moe",
            "4 CALL jax.moe(0) [PROBE]",
        ],
    ),
    "a test of a signature": (
        """
        import inspect
        from transformer_engine.jax.attention import SequenceDescriptor as S
        HAS_THD = "is_thd" in inspect.signature(S.from_segment_ids_and_pos).parameters
        def f(ids):
            if HAS_THD:
                return S.from_segment_ids_and_pos(ids, is_thd=True)
            return S.from_segment_ids_and_pos(ids)
        """,
        [
            "3 IMPORT jax.attention.SequenceDescriptor",
            "4 INSPECT jax.attention.SequenceDescriptor.from_segment_ids_and_pos",
            "7 CALL jax.attention.SequenceDescriptor.from_segment_ids_and_pos(1, is_thd) [PROBE]",
            "8 CALL jax.attention.SequenceDescriptor.from_segment_ids_and_pos(1) [PROBE]",
        ],
    ),
    "a test of a signature by a function of the user's": (
        """
        import inspect
        from transformer_engine.jax.attention import fused_attn
        def takes(function, name):
            return name in inspect.signature(function).parameters
        if takes(fused_attn, name):
            fused_attn(1)
        """,
        [
            "3 IMPORT jax.attention.fused_attn",
            "5 INSPECT jax.attention.fused_attn",
            "6 READ jax.attention.fused_attn",
            "7 CALL jax.attention.fused_attn(1) [PROBE]",
        ],
    ),
    "a function and a module that are given to functions of the user's": (
        """
        import transformer_engine.jax as te
        def run(function, x, *, of):
            return function(x, scale=1), of.flax.DenseGeneral(8)
        run(te.dense.dense, x, of=te)
        """,
        [
            "2 IMPORT jax",
            "4 CALL jax.dense.dense(1, scale)",
            "4 CALL jax.flax.DenseGeneral(1)",
            "5 READ jax.dense.dense",
            "5 READ jax",
        ],
    ),
    "a function that is given before it is defined what takes it": (
        """
        from transformer_engine.jax.dense import dense
        def build():
            return Layer(dense)
        class Layer:
            def __init__(self, product):
                self.product = product
            def __call__(self, x):
                return self.product(x, x)
        """,
        [
            "2 IMPORT jax.dense.dense",
            "4 READ jax.dense.dense",
            "7 READ jax.dense.dense",
            "9 CALL jax.dense.dense(2)",
        ],
    ),
    "a class that is derived from what its maker is given": (
        """
        from transformer_engine.jax.flax.module import TransformerEngineBase
        def make(base):
            class Wrapper(base):
                def generate_quantizer_set(self, postfix=""):
                    return super().generate_quantizer_set(postfix)
            return Wrapper
        make(TransformerEngineBase)
        """,
        [
            "2 IMPORT jax.flax.module.TransformerEngineBase",
            "4 SUBCLASS jax.flax.module.TransformerEngineBase",
            "5 OVERRIDE jax.flax.module.TransformerEngineBase.generate_quantizer_set(postfix='')",
            "6 CALL jax.flax.module.TransformerEngineBase.generate_quantizer_set(1) of instance",
            "8 READ jax.flax.module.TransformerEngineBase",
        ],
    ),
    "modules that are put in the place of Transformer Engine's": (
        """
        import sys, types
        from unittest import mock
        fake = types.ModuleType("transformer_engine.jax.attention")
        sys.modules["transformer_engine.jax.attention"] = fake
        sys.modules.setdefault("transformer_engine.jax", fake)
        with mock.patch.dict(sys.modules, {"transformer_engine.jax.dense": fake}):
            pass
        def test_fallback(monkeypatch):
            monkeypatch.setitem(sys.modules, "transformer_engine.jax", None)
        """,
        [],
    ),
    "a test by a function that is not known": (
        """
        from compat import accepts
        from transformer_engine.jax.attention import fused_attn
        if accepts(fused_attn, "mask"):
            fused_attn(mask=1)
        """,
        [
            "3 IMPORT jax.attention.fused_attn",
            "4 READ jax.attention.fused_attn",
            "5 CALL jax.attention.fused_attn(0, mask) [PROBE]",
        ],
    ),
    "a test of the version": (
        """
        import transformer_engine
        from packaging.version import Version
        if Version(transformer_engine.__version__) >= Version("2.9"):
            from transformer_engine.jax import autocast
        else:
            from transformer_engine.jax import fp8_autocast as autocast
        """,
        [
            "2 IMPORT transformer_engine",
            "4 READ __version__",
            "5 IMPORT jax.autocast [VERSION]",
            "7 IMPORT jax.fp8_autocast [VERSION]",
        ],
    ),
    "a test of the version by the installed package": (
        """
        from importlib import metadata
        NEW = tuple(map(int, metadata.version("transformer-engine").split(".")[:2])) >= (2, 9)
        def f():
            import transformer_engine.jax as te
            return te.autocast() if NEW else te.fp8_autocast()
        """,
        ["5 IMPORT jax", "6 CALL jax.autocast(0) [VERSION]", "6 CALL jax.fp8_autocast(0) [VERSION]"],
    ),
    "a call that may not be taken": (
        """
        import transformer_engine.jax as te
        try:
            x = te.f(1, new=2)
        except TypeError:
            x = te.f(1)
        """,
        ["2 IMPORT jax", "4 CALL jax.f(1, new) [TYPE_ERROR] catching TypeError", "6 CALL jax.f(1) if not jax.f"],
    ),
    "an attribute that may be missing": (
        """
        import transformer_engine.jax as te
        try:
            make = te.flax.DenseGeneral
        except AttributeError:
            make = te.DenseGeneral
        make(1)
        """,
        [
            "2 IMPORT jax",
            "4 READ jax.flax.DenseGeneral [ATTRIBUTE_ERROR]",
            "6 READ jax.DenseGeneral if not jax.flax.DenseGeneral",
            "7 CALL jax.DenseGeneral(1) if not jax.flax.DenseGeneral",
            "7 CALL jax.flax.DenseGeneral(1) without jax.flax.DenseGeneral",
        ],
    ),
    "whatever is raised": (
        """
        import transformer_engine.jax as te
        try:
            te.f()
        except:
            pass
        """,
        ["2 IMPORT jax", "4 CALL jax.f(0) [EXCEPTION] catching BaseException"],
    ),
    "exceptions that are suppressed": (
        """
        from contextlib import suppress
        with suppress(ImportError):
            from transformer_engine.jax import autocast
        """,
        ["4 IMPORT jax.autocast [IMPORT_ERROR]"],
    ),
    "a function that is defined where exceptions are caught": (
        """
        import transformer_engine.jax as te
        try:
            def f(): return te.f()
        except AttributeError:
            pass
        """,
        ["2 IMPORT jax", "4 CALL jax.f(0)"],
    ),
    "a test that is skipped": (
        """
        import pytest
        import transformer_engine.jax as te
        @pytest.mark.skipif(not hasattr(te, "moe"), reason="needs it")
        def test_moe(): te.moe(1)
        """,
        ["3 IMPORT jax", "4 DYNAMIC jax.moe [PROBE] without jax.moe", "5 CALL jax.moe(1) [PROBE]"],
    ),
    "a search for a module": (
        """
        from importlib.util import find_spec
        if find_spec("transformer_engine.jax") is None:
            raise SystemExit
        import transformer_engine.jax
        """,
        ["3 DYNAMIC jax [PROBE] without jax", "5 IMPORT jax"],
    ),
}


UNREAD = {
    "one star of several": ["names that come by * from one of several modules"],
    "a name that is computed": ["a name that is computed"] * 2,
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_using_a_name_is_found(write: Callable[[dict[str, str]], Path], way: str) -> None:
    source, expected = WAYS[way]
    uses = find_uses([write({"module.py": source})])
    assert [brief(use) for use in uses.uses] == expected
    assert [each.reason for each in uses.unread] == UNREAD.get(way, [])

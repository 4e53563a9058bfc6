"""Odd and hostile ways to use what real releases changed: what breaks is told, and nothing else is.

Each is code between two releases, with what becomes of its lines; a line that is not listed breaks nothing.
"""

from collections import defaultdict
from pathlib import Path
from textwrap import dedent

import pytest

from mnist_fp8.gate.names.stored import stored_names
from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.scan import find_uses

CASES = {
    "positional moved fused_attn 2.9->2.10": (
        ("2.9.0", "2.10.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn
        y = fused_attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "alias chain te=..; att=te.attention": (
        ("2.11.0", "2.12.0", {5: "BREAKS"}),
        """
        import transformer_engine.jax as te
        att = te.attention
        SD = att.SequenceDescriptor
        make = SD.from_segment_ids_and_pos
        d = make(a, b)
        """,
    ),
    "names that are swapped": (
        ("2.11.0", "2.12.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        make, seqlens = D.from_segment_ids_and_pos, D.from_seqlens
        make, seqlens = seqlens, make
        seqlens(a, b)
        make(a)
        """,
    ),
    "names that are swapped within others": (
        ("2.11.0", "2.12.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        make, seqlens = D.from_segment_ids_and_pos, D.from_seqlens
        make, (seqlens, x) = seqlens, (make, 1)
        seqlens(a, b)
        make(a)
        """,
    ),
    "in lambda": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        f = lambda a, b: D.from_segment_ids_and_pos(a, b)
        """,
    ),
    "in dict comprehension": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        f = {k: D.from_segment_ids_and_pos(v, None) for k, v in x.items()}
        """,
    ),
    "f-string": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        f = f"{D.from_segment_ids_and_pos(v, None)}"
        """,
    ),
    "walrus": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        if (d := D.from_segment_ids_and_pos(v, None)) is not None: pass
        """,
    ),
    "kwargs dict literal known": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = {"segment_ids": a, "segment_pos": b}
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs dict grown later with missing names": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = {"segment_ids": a, "segment_pos": b}
        if new: kw["is_thd"] = True; kw["is_segment_ids_reordered"] = False
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs dict update": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b)
        kw.update(is_thd=True, is_segment_ids_reordered=False)
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs dict or-ed": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b)
        kw |= {"is_thd": True, "is_segment_ids_reordered": False}
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs dict grown in a helper": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b)
        add_thd(kw)
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs dict setdefault": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b)
        kw.setdefault("is_thd", True); kw.setdefault("is_segment_ids_reordered", False)
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "kwargs filtered by signature": (
        ("2.13.0", "2.14.0", {4: "SAME"}),
        """
        import inspect
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b, is_thd=True, is_segment_ids_reordered=False)
        known = inspect.signature(D.from_segment_ids_and_pos).parameters
        d = D.from_segment_ids_and_pos(**{k: v for k, v in kw.items() if k in known})
        """,
    ),
    "kwargs pop by version": (
        ("2.13.0", "2.14.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        kw = dict(segment_ids=a, segment_pos=b, is_thd=True, is_segment_ids_reordered=False)
        if NEW:
            kw.pop("is_thd"); kw.pop("is_segment_ids_reordered")
        d = D.from_segment_ids_and_pos(**kw)
        """,
    ),
    "probe both branches broken: both alternatives": (
        ("2.2.0", "2.3.0", {6: "SAME"}),
        """
        import inspect
        from transformer_engine.common.recipe import DelayedScaling
        if "interval" in inspect.signature(DelayedScaling).parameters:
            r = DelayedScaling(interval=1)
        else:
            r = DelayedScaling()
        """,
    ),
    "probe but neither fits (1.13->2.1 via fused_attn mask)": (
        ("1.13.0", "2.1.0", {4: "BREAKS", 6: "BREAKS"}),
        """
        import inspect
        from transformer_engine.jax.attention import fused_attn
        if "context_parallel_axis" in inspect.signature(fused_attn).parameters:
            y = fused_attn(q, None, mask=m, **rest, context_parallel_axis="cp")
        else:
            y = fused_attn(q, None, mask=m, **rest)
        """,
    ),
    "probe of another name does not guard": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax import attention
        if hasattr(attention, "fused_attn"):
            d = attention.SequenceDescriptor.from_segment_ids_and_pos(a, b)
        """,
    ),
    "except TypeError whose fallback fits neither": (
        ("2.13.0", "2.14.0", {5: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        try:
            d = D.from_segment_ids_and_pos(a, b, is_thd=True, is_segment_ids_reordered=False)
        except TypeError:
            d = D.from_segment_ids_and_pos(a, b, is_thd=True)
        """,
    ),
    "except TypeError that re-raises": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        try:
            d = D.from_segment_ids_and_pos(a, b)
        except TypeError as e:
            raise RuntimeError("no descriptor") from e
        """,
    ),
    "except ImportError around a call does not catch TypeError": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        try:
            from transformer_engine.jax.attention import SequenceDescriptor as D
            d = D.from_segment_ids_and_pos(a, b)
        except ImportError:
            d = None
        """,
    ),
    "finally only": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        try:
            d = D.from_segment_ids_and_pos(a, b)
        finally:
            done()
        """,
    ),
    "contextlib.suppress(TypeError)": (
        ("2.11.0", "2.12.0", {5: "GUARDED"}),
        """
        import contextlib
        from transformer_engine.jax.attention import SequenceDescriptor as D
        d = None
        with contextlib.suppress(TypeError):
            d = D.from_segment_ids_and_pos(a, b)
        """,
    ),
    "pytest.raises(TypeError) expects it": (
        ("2.11.0", "2.12.0", {}),
        """
        import pytest
        from transformer_engine.jax.attention import SequenceDescriptor as D
        def test_x():
            with pytest.raises(TypeError):
                D.from_segment_ids_and_pos(a, b)
        """,
    ),
    "version test packaging old branch": (
        ("2.11.0", "2.12.0", {7: "GUARDED"}),
        """
        import transformer_engine
        from packaging.version import Version
        from transformer_engine.jax.attention import SequenceDescriptor as D
        if Version(transformer_engine.__version__) >= Version("2.12"):
            d = D.from_segment_ids_and_pos(a, b, is_thd=True, is_segment_ids_reordered=False)
        else:
            d = D.from_segment_ids_and_pos(a, b)
        """,
    ),
    "version constant in another function": (
        ("2.11.0", "2.12.0", {6: "GUARDED"}),
        """
        from importlib.metadata import version
        from transformer_engine.jax.attention import SequenceDescriptor as D
        OLD = tuple(map(int, version("transformer-engine").split(".")[:2])) < (2, 12)
        def f(a, b):
            if OLD:
                return D.from_segment_ids_and_pos(a, b)
            return D.from_segment_ids_and_pos(a, b, is_thd=True, is_segment_ids_reordered=False)
        """,
    ),
    "subclass that has own from_ method shadows": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        class Mine(SequenceDescriptor):
            @classmethod
            def from_segment_ids_and_pos(cls, a, b): return cls(segment_ids=a, segment_pos=b)
        d = Mine.from_segment_ids_and_pos(a, b)
        """,
    ),
    "subclass inherits classmethod": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        class Mine(SequenceDescriptor): pass
        d = Mine.from_segment_ids_and_pos(a, b)
        """,
    ),
    "local variable shadows import": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        def f(SequenceDescriptor, a):
            return SequenceDescriptor.from_segment_ids_and_pos(a)
        """,
    ),
    "rebinding shadows import": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        SequenceDescriptor = Mine
        d = SequenceDescriptor.from_segment_ids_and_pos(a)
        """,
    ),
    "mock patched class as string": (
        ("2.2.0", "2.3.0", {2: "BREAKS"}),
        """
        from unittest import mock
        with mock.patch("transformer_engine.jax.flax.TransformerEngineBase"): pass
        """,
    ),
    "patch object attr name": (
        ("2.2.0", "2.3.0", {2: "BREAKS", 3: "BREAKS"}),
        """
        from unittest import mock
        import transformer_engine.jax.fp8 as fp8
        with mock.patch.object(fp8, "FP8Helper"): pass
        """,
    ),
    "sys.modules stub of te in a test file": (
        ("2.2.0", "2.3.0", {}),
        """
        import sys, types
        m = types.ModuleType("transformer_engine.jax.fp8")
        sys.modules["transformer_engine.jax.fp8"] = m
        """,
    ),
    "hook gone: 1.x style generate_fp8_meta_set call on self": (
        ("2.2.0", "2.3.0", {6: "BREAKS"}),
        """
        import flax.linen as nn
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class M(TransformerEngineBase):
            @nn.compact
            def __call__(self, x):
                return TransformerEngineBase.generate_fp8_meta_set("0")
        """,
    ),
    "self.method of the base that went": (
        ("2.2.0", "2.3.0", {6: "BREAKS"}),
        """
        import flax.linen as nn
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class M(TransformerEngineBase):
            @nn.compact
            def __call__(self, x):
                return self.generate_fp8_meta_set("0")
        """,
    ),
    "re-export ended": (
        ("2.2.0", "2.3.0", {1: "BREAKS"}),
        """
        from transformer_engine.jax.flax import TransformerEngineBase
        """,
    ),
    "star import and use": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import *
        d = SequenceDescriptor.from_segment_ids_and_pos(a, b)
        """,
    ),
    "star import from flax: name that __all__ lacks": (
        ("2.2.0", "2.3.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.flax import *
        class M(TransformerEngineBase): pass
        """,
    ),
    "moe call by position 5": (
        ("2.18.0", "2.19.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.moe import moe
        out = moe(x, g, w0, w1, wo, num_experts=8, num_experts_per_tok=2, ep_axis="ep")
        """,
    ),
    "moe result indexed [1]": (
        ("2.18.0", "2.19.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.moe import moe
        aux = moe(x, g, wi_0=w0, wi_1=w1, wo=wo, num_experts=8, num_experts_per_tok=2, ep_axis="ep")[-1]
        """,
    ),
    "token_dispatch starred unpack": (
        ("2.11.0", "2.12.0", {2: "CHANGES"}),
        """
        from transformer_engine.jax.permutation import token_dispatch
        out, *rest = token_dispatch(x, m, n)
        """,
    ),
    "token_dispatch 3-unpack": (
        ("2.11.0", "2.12.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.permutation import token_dispatch
        out, p, rid = token_dispatch(x, m, n)
        """,
    ),
    "token_dispatch result kept then unpacked": (
        ("2.11.0", "2.12.0", {2: "CHANGES"}),
        """
        from transformer_engine.jax.permutation import token_dispatch
        r = token_dispatch(x, m, n)
        out, p, rid = r
        """,
    ),
    "token_dispatch jit wrapped": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        import jax
        from transformer_engine.jax.permutation import token_dispatch
        out, p, rid = jax.jit(token_dispatch, static_argnums=2)(x, m, n)
        """,
    ),
    "token_dispatch vmapped": (
        ("2.11.0", "2.12.0", {3: "BREAKS"}),
        """
        import jax
        from transformer_engine.jax.permutation import token_dispatch
        out, p, rid = jax.vmap(token_dispatch, in_axes=(0, 0, None))(x, m, n)
        """,
    ),
    "DPA default dtype change, via partial": (
        ("2.11.0", "2.12.0", {4: "CHANGES"}),
        """
        import functools
        from transformer_engine.jax.flax import DotProductAttention
        make = functools.partial(DotProductAttention, head_dim=64)
        d = make(num_attention_heads=8)
        """,
    ),
    "LayerNormMLP defaults changed": (
        ("2.9.0", "2.10.0", {2: "CHANGES"}),
        """
        from transformer_engine.jax.flax import LayerNormMLP
        m = LayerNormMLP(intermediate_dim=4)
        """,
    ),
    "DPA keyword mask 1.13->2.1 stays": (
        ("1.13.0", "2.1.0", {3: "SAME"}),
        """
        from transformer_engine.jax.flax import DotProductAttention
        d = DotProductAttention(64, 8)
        y = d(q, k, v, mask=mask)
        """,
    ),
    "self.attr instance in another method": (
        ("2.9.0", "2.10.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn
        class A:
            def __init__(self): self.attn = fused_attn
            def __call__(self, q): return self.attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "dataclass field default": (
        ("2.9.0", "2.10.0", {7: "BREAKS"}),
        """
        import dataclasses
        from typing import Callable
        from transformer_engine.jax.attention import fused_attn
        @dataclasses.dataclass
        class C:
            attn: Callable = fused_attn
            def run(self, q): return self.attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "dispatch table by name call": (
        ("2.9.0", "2.10.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn
        KERNELS = {"te": fused_attn, "xla": other}
        y = KERNELS["te"](q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "registered by own decorator then called by own name": (
        ("2.9.0", "2.10.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn as fa
        def register(f): return f
        @register
        def my(q): return fa(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "async/await, match statement, PEP695": (
        ("2.9.0", "2.10.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn as fa
        async def f[T](q: T):
            match q:
                case [a, b]: return fa(a, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "conditional expression import alias": (
        ("2.9.0", "2.10.0", {3: "BREAKS"}),
        """
        import transformer_engine.jax.attention as att
        fn = att.fused_attn if flag else other
        y = fn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "argument flows: function handed to own helper": (
        ("2.9.0", "2.10.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import fused_attn
        def run(fn, q): return fn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        run(fused_attn, q)
        """,
    ),
    "module handed to own helper": (
        ("2.9.0", "2.10.0", {2: "BREAKS"}),
        """
        import transformer_engine.jax.attention as att
        def run(te, q): return te.fused_attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        run(att, q)
        """,
    ),
    "lazy loader function": (
        ("2.9.0", "2.10.0", {6: "BREAKS"}),
        """
        import functools
        @functools.cache
        def _te():
            import transformer_engine.jax.attention as att
            return att
        def f(q): return _te().fused_attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "global set in init function": (
        ("2.9.0", "2.10.0", {5: "BREAKS"}),
        """
        att = None
        def load():
            global att
            import transformer_engine.jax.attention as att
        def f(q): return att.fused_attn(q, None, s, k, b, m, l, 1.0, 0.0, True)
        """,
    ),
    "enum by value string lookup": (
        ("2.9.0", "2.10.0", {2: "SAME"}),
        """
        from transformer_engine.jax.attention import AttnMaskType
        m = AttnMaskType["CAUSAL_MASK"]
        """,
    ),
    "enum member missing by getattr": (
        ("2.9.0", "2.10.0", {2: "SAME"}),
        """
        from transformer_engine.jax import attention
        m = getattr(attention.AttnMaskType, "CAUSAL_MASK")
        """,
    ),
    "autocast used with positional recipe 2.8->2.9 fp8_autocast": (
        ("2.8.0", "2.9.0", {}),
        """
        import transformer_engine.jax as te
        with te.fp8_autocast(True, recipe, mesh): pass
        """,
    ),
    "get_delayed_scaling gone": (
        ("2.8.0", "2.9.0", {2: "BREAKS"}),
        """
        import transformer_engine.jax as te
        r = te.get_delayed_scaling()
        """,
    ),
    "get_delayed_scaling under hasattr": (
        ("2.8.0", "2.9.0", {}),
        """
        import transformer_engine.jax as te
        r = te.get_delayed_scaling() if hasattr(te, "get_delayed_scaling") else None
        """,
    ),
    "and-chain guard": (
        ("2.8.0", "2.9.0", {}),
        """
        import transformer_engine.jax as te
        r = hasattr(te, "get_delayed_scaling") and te.get_delayed_scaling()
        """,
    ),
    "not hasattr early return": (
        ("2.8.0", "2.9.0", {}),
        """
        import transformer_engine.jax as te
        def f():
            if not hasattr(te, "get_delayed_scaling"):
                return None
            return te.get_delayed_scaling()
        """,
    ),
    "try attr except AttributeError else": (
        ("2.8.0", "2.9.0", {3: "GUARDED"}),
        """
        import transformer_engine.jax as te
        try:
            f = te.get_delayed_scaling
        except AttributeError:
            f = None
        else:
            r = f()
        """,
    ),
    "config string": (
        ("2.7.0", "2.8.0", {1: "BREAKS"}),
        """
        TARGET = "transformer_engine.jax.MajorShardingType"
        """,
    ),
    "string in log message": (
        ("2.7.0", "2.8.0", {}),
        """
        import logging
        logging.info("transformer_engine.jax.MajorShardingType is not there")
        """,
    ),
    "own package vendors transformer_engine relative": (
        ("2.7.0", "2.8.0", {}),
        """
        from .transformer_engine.jax import MajorShardingType
        """,
    ),
    "type annotation only under future annotations": (
        ("2.7.0", "2.8.0", {}),
        """
        from __future__ import annotations
        import transformer_engine.jax as te
        def f(x: te.MajorShardingType) -> None: ...
        """,
    ),
    "type annotation quoted": (
        ("2.7.0", "2.8.0", {}),
        """
        import transformer_engine.jax as te
        def f(x: "te.MajorShardingType") -> None: ...
        """,
    ),
    "local variable annotation never evaluated": (
        ("2.7.0", "2.8.0", {}),
        """
        import transformer_engine.jax as te
        def f():
            x: te.MajorShardingType = 1
            return x
        """,
    ),
    "del name then reuse": (
        ("2.11.0", "2.12.0", {}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor as D
        del D
        from mine import D
        d = D.from_segment_ids_and_pos(a, b)
        """,
    ),
    "loop over classes": (
        ("2.11.0", "2.12.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.attention import SequenceDescriptor
        from mine import Other
        for cls in (SequenceDescriptor, Other):
            d = cls.from_segment_ids_and_pos(a, b)
        """,
    ),
    "override with **kwargs fits all": (
        ("2.13.0", "2.14.0", {}),
        """
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class W(TransformerEngineBase):
            def generate_quantizer_set(self, *args, **kwargs):
                kwargs["variable_collection"] = "x"
                return super().generate_quantizer_set(*args, **kwargs)
        """,
    ),
    "override lacks n_groups": (
        ("2.13.0", "2.14.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class W(TransformerEngineBase):
            def generate_quantizer_set(self, postfix="", collection=None, name=None, recipe=None):
                return super().generate_quantizer_set(postfix, collection, name, recipe)
        """,
    ),
    "override in grandchild over own base": (
        ("2.13.0", "2.14.0", {4: "BREAKS"}),
        """
        from transformer_engine.jax.flax.module import TransformerEngineBase
        class B(TransformerEngineBase): pass
        class W(B):
            def generate_quantizer_set(self, postfix="", collection=None, name=None, recipe=None): ...
        """,
    ),
    "override on subclass of DenseGeneral 2.9->2.10": (
        ("2.9.0", "2.10.0", {3: "BREAKS"}),
        """
        from transformer_engine.jax.flax import DenseGeneral
        class W(DenseGeneral):
            def generate_quantizer_set(self, postfix="", variable_collection=None, fp8_recipe=None): ...
        """,
    ),
    "class factory with base parameter": (
        ("2.13.0", "2.14.0", {4: "BREAKS"}),
        """
        import transformer_engine.jax as te
        def make(base):
            class W(base):
                def generate_quantizer_set(self, postfix="", collection=None, name=None, recipe=None): ...
            return W
        W = make(te.flax.module.TransformerEngineBase)
        """,
    ),
    "grouped_dense 2.14->2.15 kernel_amax removed positional": (
        ("2.14.0", "2.15.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.dense import grouped_dense
        y = grouped_dense(x, k, g, ((1,), (1,)), None, None, prec)
        """,
    ),
    "MeshResource positional 2.7->2.8 tpsp inserted": (
        ("2.7.0", "2.8.0", {2: "BREAKS"}),
        """
        from transformer_engine.jax.sharding import MeshResource
        m = MeshResource("data", "tensor", "fsdp")
        """,
    ),
    "dataclasses.replace(MeshResource, ...)": (
        ("2.16.1", "2.17.0", {}),
        """
        import dataclasses
        from transformer_engine.jax.sharding import MeshResource
        m = dataclasses.replace(MeshResource(), tp_resource="x")
        """,
    ),
    "read of attr on instance": (
        ("2.16.1", "2.17.0", {3: "SAME"}),
        """
        from transformer_engine.jax.sharding import MeshResource
        m = MeshResource()
        m.dp_resource
        """,
    ),
    "nn.DotProductAttention instance attr field": (
        ("2.16.1", "2.17.0", {3: "SAME"}),
        """
        from transformer_engine.jax.flax import DotProductAttention
        d = DotProductAttention(64, 8)
        print(d.head_dim, d.name, d.variables)
        """,
    ),
    "is_fused_attn_kernel_available batch_size": (
        ("2.19.0", "2.20.2", {2: "BREAKS"}),
        """
        from transformer_engine.jax.attention import is_fused_attn_kernel_available as ok
        if ok(True, q, q, l, b, m, s, 0.0, 8, 8, 128, 128, 64, 64):
            pass
        """,
    ),
    "flax.moe P re-export": (
        ("2.18.0", "2.19.0", {1: "BREAKS"}),
        """
        from transformer_engine.jax.flax.moe import P
        """,
    ),
    "pydantic ignores a removed argument": (
        ("2.1.0", "2.2.0", {2: "CHANGES"}),
        """
        from transformer_engine.common.recipe import DelayedScaling
        r = DelayedScaling(interval=1, margin=0)
        """,
    ),
    "pydantic ignores an unknown argument on both": (
        ("2.18.0", "2.19.0", {2: "SAME"}),
        """
        from transformer_engine.common.recipe import Float8CurrentScaling
        r = Float8CurrentScaling(margin=0)
        """,
    ),
    "pydantic too many by position": (
        ("2.1.0", "2.2.0", {2: "BREAKS"}),
        """
        from transformer_engine.common.recipe import DelayedScaling, Format
        r = DelayedScaling(0, 1, Format.HYBRID)
        """,
    ),
    "annotated base, member of derived": (
        ("2.18.0", "2.19.0", {2: "SAME"}),
        """
        from transformer_engine.jax.quantize import ScaledTensor
        def f(x: ScaledTensor): return x.data, x.scale_inv, x.dequantize()
        """,
    ),
    "gone after it failed already": (
        ("2.3.0", "2.4.0", {2: "BROKEN_ALREADY"}),
        """
        from transformer_engine.jax import dense
        y = dense.grouped_dense(x, k, g)
        """,
    ),
    "fallback import gone as well": (
        ("2.2.0", "2.3.0", {4: "BREAKS"}),
        """
        try:
            from transformer_engine.jax.flax import TransformerEngineBase
        except ImportError:
            from transformer_engine.jax.fp8 import TransformerEngineBase
        """,
    ),
    "hasattr in two places": (
        ("2.8.0", "2.9.0", {}),
        """
        import transformer_engine.jax as te
        if hasattr(te, "get_delayed_scaling"):
            r = te.get_delayed_scaling()
        def f():
            return te.get_delayed_scaling() if hasattr(te, "get_delayed_scaling") else None
        """,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_is_told_and_nothing_else(case: str, tmp_path: Path) -> None:
    (old, new, expected), source = CASES[case]
    (tmp_path / "user.py").write_text(dedent(source).lstrip())
    found = defaultdict(set)
    for each in judge(find_uses([tmp_path]).uses, stored_names(old), stored_names(new)):
        found[each.use.place.line].add(each.outcome.name)
    told = {line: outcome for line, outcome in expected.items() if outcome in found[line]}
    same = {line for line, outcome in expected.items() if outcome == "SAME" and found[line] != {"SAME"}}
    breaks = {line for line, outcomes in found.items() if "BREAKS" in outcomes}
    assert (told, same) == (expected, set())
    assert breaks <= {line for line, outcome in expected.items() if outcome == "BREAKS"}

"""What kernels' names say, and how a trace is read. Real traces are read by the claim ``test_kernels.py``, on a GPU."""

import contextlib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.programs import kernels
from mnist_fp8.programs.kernels import Kernel, ProfilerError

E4M3, E5M2, BF16 = "float8_e4m3fn", "float8_e5m2", "bfloat16"

PRODUCTS = {
    # As seen on an H100 with cuBLAS 13.0.
    "nvjet_sm90_qqtst_8x64_128x16_4x1_v_bz_TNN": (E4M3, E4M3),
    "nvjet_sm90_rqtst_8x64_128x16_4x2_h_bz_TNN": (E5M2, E4M3),
    "nvjet_sm90_qrtst_64x8_128x16_2x4_h_bz_TNT": (E4M3, E5M2),
    "nvjet_sm90_tst_64x8_64x16_1x4_h_bz_NNT": (BF16, BF16),
    # As cuBLAS 12 names them.
    "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT": ("float16", "float16"),
    "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize64x64x128_warpgroupsize1x1x1_execute_segment_k_off_kernel": (
        E4M3,
        E4M3,
    ),
    "sm89_xmma_gemm_e5m2bf16_e4m3f32_f32_tn_n_tilesize128x128x64_stage3": (E5M2, E4M3),
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64": (BF16, BF16),
    "cutlass3x_sm90_tensorop_s64x128x32gemm_e4m3_e5m2_f32_bf16_bf16_128x128x128": (E4M3, E5M2),
    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x64_32x6_tn_align8>": (BF16, BF16),
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_32x6_tn": (BF16, BF16),
    "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_32x6_tn_align8": (BF16, BF16),
    "nvjet_sm100a_qqtst_128x256_128x6_2x1_2cta_v_bz_TNT": (E4M3, E4M3),
    # Products whose names do not say what they multiply: they are not taken for anything.
    "gemm_fusion_dot_general_6": None,
    "nvjet_sm90_xxtst_8x64": None,
    "void gemv2T_kernel_val<int, int, float>": None,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_operands_of_a_product_are_read_from_its_name(name: str) -> None:
    assert kernels.is_gemm(name)
    assert kernels.operands(name) == PRODUCTS[name]


OTHERS = [
    "sm90_xmma_wgrad_indexed_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize64x64x64",
    "_ZN17cutlass__5x_cudnn6KernelINS_4conv6kernel23ImplicitGemmConvolution",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
    "void transformer_engine::unary_kernel<16, true, float, transformer_engine::Empty>",
    "loop_select_fusion_1",
]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_product_is_not_taken_for_one(name: str) -> None:
    assert not kernels.is_gemm(name)


# --- a trace -------------------------------------------------------------------------------------------------------


def event(name: str, start: float, **stats: object) -> Any:
    """An event as the profiler's reader gives it."""
    return types.SimpleNamespace(name=name, start_ns=start, stats=list(stats.items()))


PLANES = {
    "/host:CPU": [event("nvjet_on_the_host", 0, kernel_details="grid:1")],
    "/device:GPU:0": [
        event("second", 20, kernel_details="grid:1", hlo_op="te_gemm.1"),
        event("MemcpyD2D", 15, memcpy_details="size:1"),
        event("first", 10, kernel_details="grid:1"),
    ],
}


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[Any]]], None]:
    """A profiler that has seen given events by plane."""

    def see(planes: dict[str, list[Any]]) -> None:
        @contextlib.contextmanager
        def trace(folder: str) -> Iterator[None]:
            yield
            (Path(folder) / "host.xplane.pb").touch()

        read = types.SimpleNamespace(
            planes=[
                types.SimpleNamespace(name=name, lines=[types.SimpleNamespace(events=events)])
                for name, events in planes.items()
            ]
        )
        monkeypatch.setattr(jax.profiler, "trace", trace)
        monkeypatch.setattr(jax.profiler, "ProfileData", types.SimpleNamespace(from_file=lambda _: read))

    return see


def test_trace_lists_the_devices_kernels_in_their_order(profiled: Callable[[dict[str, list[Any]]], None]) -> None:
    profiled(PLANES)
    runs: list[int] = []
    assert kernels.trace(runs.append, 3) == [Kernel("first", ""), Kernel("second", "te_gemm.1")]
    assert runs == [3, 3], "once to load what there is to load, and once to be seen"


def test_trace_without_a_kernel_is_an_error(profiled: Callable[[dict[str, list[Any]]], None]) -> None:
    profiled({"/host:CPU": PLANES["/host:CPU"]})
    with pytest.raises(ProfilerError, match=r"^the profiler saw no kernel; it needs CUPTI"):
        kernels.trace(lambda: None)


@pytest.mark.host
def test_a_cpu_has_no_trace_and_says_so() -> None:
    assert "saw no kernel" in kernels.why_no_trace()


@pytest.mark.gpu
@pytest.mark.profiler
def test_a_product_is_seen_where_there_is_a_profiler() -> None:
    square = jnp.ones((256, 256), jnp.bfloat16)
    names = [kernel.name for kernel in kernels.trace(jax.jit(jnp.matmul), square, square)]
    assert any(map(kernels.is_gemm, names)), names

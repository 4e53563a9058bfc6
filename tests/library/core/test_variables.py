"""Which environment variables reach a run."""

from mnist_fp8.core import variables

SHELL = {
    "NVTE_FUSED_ATTN": "0",
    "XLA_FLAGS": "--a",
    "CUBLASLT_LOG_LEVEL": "1",
    "LD_LIBRARY_PATH": "/cuda",
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
    "FLAX_RETURN_FROZEN_DICT": "1",
    "PATH": "/bin",
    "LC_ALL": "C",
    "HOME": "/root",
    "TF_VAR_password": "secret",
    "NVIDIA_PRODUCT_NAME": "JAX",
    "HOMEBREW_PREFIX": "/opt",
    "PYTHONPATH": "/mine",
    "PYTEST_ADDOPTS": "-x",
    "LD_PRELOAD": "/x.so",
}


def test_known_variables_reach_a_run_and_no_others() -> None:
    assert list(variables.that_change_results(SHELL)) == [
        "CUBLASLT_LOG_LEVEL",
        "JAX_PLATFORMS",
        "LD_LIBRARY_PATH",
        "NVTE_FUSED_ATTN",
        "XLA_FLAGS",
    ]
    assert set(variables.passed_on(SHELL)) == {*variables.that_change_results(SHELL), "PATH", "LC_ALL", "HOME"}


def test_options_of_jax_and_flax_are_left_out_by_name() -> None:
    assert variables.left_out(SHELL) == {"FLAX_RETURN_FROZEN_DICT": "1", "JAX_ENABLE_X64": "1"}


def test_switches_of_recipes_reach_a_run_and_not_its_claims() -> None:
    switches = {"NVTE_BACKWARD_OVERRIDE": "dequantized", "NVTE_NVFP4_DISABLE_RHT": "1"}
    assert variables.that_decide_defaults(SHELL | switches) == switches
    assert variables.that_change_results(switches) == switches


def test_fast_math_is_left_out_of_xla_s_flags() -> None:
    shell = {"XLA_FLAGS": "--a=1 --xla_cpu_enable_fast_math=true --b=2"}
    assert variables.left_out(shell) == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert variables.left_out({"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}) == {}
    assert variables.passed_on(shell) == variables.that_change_results(shell) == {"XLA_FLAGS": "--a=1 --b=2"}


def test_every_variable_has_one_reason() -> None:
    both = dict(variables.CHANGE_RESULTS) | dict(variables.CHANGE_NOTHING)
    assert all(both.values())
    assert len(both) == len(variables.CHANGE_RESULTS) + len(variables.CHANGE_NOTHING)

"""Why a mutant that can be observed is not caught, one by one."""

EXPLAINED: dict[str, str] = {
    "jax/cpp_extensions/quantization.py:776:25788-25796:not (is_dbias)": "`DenseGeneral` adds its bias after the"
    " product, so `is_dbias` is never true there: the mutant sums a bias gradient that nobody takes, and XLA leaves the"
    " sum out.",
    "jax/cpp_extensions/gemm.py:1991:78086-78159:jax.lax.dot_general(lhs, rhs, dim_nums)": "Only the program says"
    " `preferred_element_type`: both operands have the dtype that is preferred, since layers cast the kernel before.",
    "jax/flax/transformer.py:1881:84324-84333:'encoder_'": "A member of an enumeration has another value, which nothing"
    " compares. A verdict reports it: the value is an entry of `api`.",
    "jax/quantize/tensor.py:706:24294-24306:not (amax is None)": "A quantized tensor loses its amax, which the"
    " dequantizer of NVFP4 alone reads: a host run of Hopper's recipes has no product of it.",
}
"""The reason, by `proofs.mutation.path.Mutant.name`."""

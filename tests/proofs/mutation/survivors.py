"""Why a mutant that can be observed is not caught, one by one."""

_OTHER_DRAWS = (
    "Other random numbers with the same distribution: nothing promises which ones a key gives. A verdict tells that"
    " they are others."
)

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
    "common/recipe/__init__.py:625:28143-28145:', _'": "The text of a recipe ends in another sign.",
    "jax/quantize/helper.py:667:23964-24032:pass": _OTHER_DRAWS,
    "jax/quantize/helper.py:672:24234-24235:(-1)": _OTHER_DRAWS,
    "jax/quantize/helper.py:672:24234-24235:1": _OTHER_DRAWS,
    "jax/quantize/helper.py:664:23903-23905:17": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:659:23293-23294:(-1)": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:659:23296-23297:(-1)": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:660:23351-23352:(-1)": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:665:23470-23550:pass": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:665:23544-23545:(-1)": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:666:23636-23637:4": _OTHER_DRAWS,
    "jax/sharding.py:264:9081-9082:2": _OTHER_DRAWS,
    "jax/quantize/quantizer.py:788:28816-28817:5": "The scales are E4M3 already, since a host run's XLA keeps that"
    " cast. So rounding them again changes none: only the program tells.",
    "jax/quantize/quantizer.py:761:27115-27168:(jnp.max(jnp.abs(x)).reshape((1,)))": "The amax of a tensor of BF16 is"
    " as exact in BF16 as in float32.",
}
"""The reason, by `proofs.mutation.path.Mutant.name`."""

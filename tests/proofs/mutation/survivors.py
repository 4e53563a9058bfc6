"""Why a mutant that can be observed is not caught, one by one."""

EXPLAINED: dict[str, str] = {
    "jax/cpp_extensions/quantization.py:776:25788-25796:not (is_dbias)": "`DenseGeneral` adds its bias after the"
    " product, so `is_dbias` is never true there: the mutant sums a bias gradient that nobody takes, and XLA leaves the"
    " sum out.",
}
"""The reason, by `proofs.mutation.path.Mutant.name`."""

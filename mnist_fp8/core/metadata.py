"""What Transformer Engine calls where FP8 metadata are kept."""

METADATA_COLLECTIONS = ("fp8_metas", "_overwrite_with_gradient")
"""The collections: of its layers since 1.1, and of its wrapper of a product. There is nothing else in them."""

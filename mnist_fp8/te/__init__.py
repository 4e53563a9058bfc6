"""The one door to Transformer Engine: nothing else in the project imports it.

The first call of any function here loads TE, in the kind of run that the machine allows or ``MNIST_FP8_TE`` forces.
What differs between releases is found by looking (is there a name, an argument), not by comparing versions.
"""

from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.te.autocasts import Autocast, autocast, former_autocast, raw_autocast
from mnist_fp8.te.dense import (
    DenseDialect,
    Variables,
    computing_in_the_dtype_of_its_input,
    dense_dialect,
    dense_general,
    kernel_shape,
    unbox,
)
from mnist_fp8.te.loading import (
    Engine,
    choose_run_kind,
    engine,
    find_extension,
    find_name,
    has_name,
    prepare_xla,
    quantization,
    version,
    why_no_gpu,
)
from mnist_fp8.te.metadata import (
    computes_more_in_bf16,
    history_leaf,
    leaves_float8_to_xla,
    metadata_collection,
    metadata_dialect,
    read_leaf,
    scale_leaf,
    update_collections,
    update_fp8_metas,
)
from mnist_fp8.te.pretended import device_for
from mnist_fp8.te.recipes import keeps_metadata, make_recipe, recipe_config, recipe_names, size_multiple
from mnist_fp8.te.sharding import (
    extend_logical_axis_rules,
    global_mesh_resource,
    mesh_axes,
    mesh_context,
    mesh_resource,
)
from mnist_fp8.te.supports import Support, require_support, support, support_by_recipe

__all__ = [
    "Autocast",
    "DenseDialect",
    "Engine",
    "Support",
    "TeUnavailableError",
    "Variables",
    "autocast",
    "choose_run_kind",
    "computes_more_in_bf16",
    "computing_in_the_dtype_of_its_input",
    "dense_dialect",
    "dense_general",
    "device_for",
    "engine",
    "extend_logical_axis_rules",
    "find_extension",
    "find_name",
    "former_autocast",
    "global_mesh_resource",
    "has_name",
    "history_leaf",
    "keeps_metadata",
    "kernel_shape",
    "leaves_float8_to_xla",
    "make_recipe",
    "mesh_axes",
    "mesh_context",
    "mesh_resource",
    "metadata_collection",
    "metadata_dialect",
    "prepare_xla",
    "quantization",
    "raw_autocast",
    "read_leaf",
    "recipe_config",
    "recipe_names",
    "require_support",
    "scale_leaf",
    "size_multiple",
    "support",
    "support_by_recipe",
    "unbox",
    "update_collections",
    "update_fp8_metas",
    "version",
    "why_no_gpu",
]

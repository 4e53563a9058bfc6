"""A large trainer in the style of MaxText, after its first repair. Written for Transformer Engine 2.12 and 2.13."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"


class Attention:
    """Fused attention; packed sequences come with segment ids."""

    def __init__(self, config, mesh, dropout_rate):
        self.config = config
        self.mesh = mesh
        self.dropout_rate = dropout_rate

    def __call__(self, query, key, value, segment_ids, positions):
        from transformer_engine.jax.attention import SequenceDescriptor
        from transformer_engine.jax.flax.transformer import DotProductAttention

        descriptor, layout, kind = None, "BSHD_BSHD_BSHD", "causal"
        if self.config.packing:
            layout, kind = "THD_THD_THD", "padding_causal"
            if segment_ids is None:
                segment_ids = jnp.ones(query.shape[:2], dtype=jnp.int32)
            descriptor = SequenceDescriptor.from_segment_ids_and_pos(
                segment_ids=segment_ids,
                segment_pos=positions,
                is_thd=True,
                is_segment_ids_reordered=False,
            )
        layer = DotProductAttention(
            head_dim=query.shape[-1],
            num_attention_heads=self.config.num_query_heads,
            num_gqa_groups=self.config.num_kv_heads,
            attn_mask_type=kind,
            attn_bias_type="no_bias",
            attention_dropout=self.dropout_rate,
            dropout_rng_name="aqt",
            dtype=query.dtype,
            float32_logits=self.config.float32_logits,
            qkv_layout=layout,
            scale_factor=1.0,
            transpose_batch_sequence=False,
            window_size=self.config.window,
            context_parallel_causal_load_balanced=self.config.load_balance,
            context_parallel_axis="context",
            context_parallel_strategy=self.config.context_parallel_strategy,
            max_segments_per_seq=self.config.max_segments,
        )
        return layer.apply({}, query, key, value, sequence_descriptor=descriptor)


class TransformerEngineQuantization:
    """Products of dense layers by Transformer Engine, whose metadata are kept as gradients are."""

    def __init__(self, recipe_name, collective_gemm=False):
        self.recipe = self.find_recipe(recipe_name)
        self.collective_gemm = collective_gemm

    @staticmethod
    def find_recipe(name):
        from transformer_engine.common import recipe

        known = {
            "te_fp8_delayedscaling": recipe.DelayedScaling,
            "te_fp8_currentscaling": recipe.Float8CurrentScaling,
            "te_mxfp8": recipe.MXFP8BlockScaling,
            "te_nvfp4": recipe.NVFP4BlockScaling,
            "te_nvfp4_no_rht": functools.partial(recipe.NVFP4BlockScaling, disable_rht=True),
        }
        return known[name]()

    def block_size(self):
        from transformer_engine.common import recipe

        if isinstance(self.recipe, recipe.MXFP8BlockScaling):
            return 32
        return 128 if isinstance(self.recipe, recipe.NVFP4BlockScaling) else 1

    def dot_general_cls(self, mesh_axes=()):
        import transformer_engine.jax
        import transformer_engine.jax.cpp_extensions as tex

        default_recipe, collective_gemm = self.recipe, self.collective_gemm

        class TEWrapper(transformer_engine.jax.flax.module.TransformerEngineBase):
            """Holds the metadata of one product."""

            def generate_quantizer_set(
                self,
                postfix="",
                variable_collection=None,
                quantization_checkpoint_name=None,
                fp8_recipe=default_recipe,
            ):
                return super().generate_quantizer_set(
                    postfix=postfix,
                    variable_collection=OVERWRITE_WITH_GRADIENT,
                    quantization_checkpoint_name="quantization",
                    fp8_recipe=fp8_recipe,
                )

            def collective_op_set(self):
                if not collective_gemm or not mesh_axes:
                    return tex.noop_collective_op_set
                if mesh_axes[0] == "embed":
                    return tex.CollectiveOpSet.create(tex.CollectiveOp.ALL_GATHER)
                return tex.CollectiveOpSet.create(tex.CollectiveOp.REDUCE_SCATTER)

            @nn.compact
            def __call__(self, x, kernel, dims, **kwargs):
                contracting, batch = dims
                assert batch == ((), ())
                return transformer_engine.jax.dense.dense(
                    x,
                    kernel,
                    contracting_dims=contracting,
                    collective_op_set=self.collective_op_set(),
                    quantizer_set=self.generate_quantizer_set(),
                )

        return TEWrapper


def bootstrap_collective_gemm(config):
    import transformer_engine.jax.cpp_extensions as tex

    tex.collective_gemm_bootstrap(
        jax.device_count(), jax.local_device_count(), jax.process_index(), config.tensor_sequence_size
    )


@contextlib.contextmanager
def transformer_engine_context():
    """Tells Transformer Engine what the axes of the mesh are for, where it is installed."""
    try:
        from transformer_engine.jax.sharding import MeshResource, global_shard_guard

        resource = MeshResource(
            dp_resource="data",
            tp_resource="tensor",
            tpsp_resource="tensor_sequence",
            fsdp_resource="fsdp",
            pp_resource=None,
            cp_resource="context",
        )
        with global_shard_guard(resource):
            yield
    except (ImportError, AttributeError):
        yield

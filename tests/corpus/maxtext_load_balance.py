"""Reordering of a batch for context parallelism, in the style of MaxText. Written for Transformer Engine 2.2 and later."""

KEYS = frozenset({"inputs", "targets", "inputs_position", "targets_position", "inputs_segmentation"})


def reorder(batch, striped, cp_size):
    """The batch in the order in which causal attention keeps all devices equally busy."""
    from transformer_engine.jax.attention import ReorderStrategy as TeReorderStrategy
    from transformer_engine.jax.attention import reorder_causal_load_balancing

    strategies = {False: TeReorderStrategy.DualChunkSwap, True: TeReorderStrategy.Striped}
    return {
        key: reorder_causal_load_balancing(value, strategies[striped], cp_size=cp_size, seq_dim=1)
        if key in KEYS
        else value
        for key, value in batch.items()
    }

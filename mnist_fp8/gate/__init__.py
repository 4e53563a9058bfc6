"""The gate: what judges installations of Transformer Engine. Nothing in it imports JAX, NumPy or what is judged."""

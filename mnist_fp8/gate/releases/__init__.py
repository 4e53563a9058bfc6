"""Releases of Transformer Engine, and an environment for each."""

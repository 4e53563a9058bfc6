"""The names of Transformer Engine, release by release."""

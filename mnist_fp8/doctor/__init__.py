"""What does not fit together on this machine, and whether Transformer Engine runs on it."""

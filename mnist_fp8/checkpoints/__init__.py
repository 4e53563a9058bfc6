"""Checkpoints that were saved under one release of Transformer Engine, written anew for another one."""

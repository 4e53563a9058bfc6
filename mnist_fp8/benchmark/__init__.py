"""How fast training and dense layers are, measured on this machine."""

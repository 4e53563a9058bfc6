"""What a dense layer has to compute, and how close; nothing here is Transformer Engine's."""

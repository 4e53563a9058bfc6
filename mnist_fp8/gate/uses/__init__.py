"""What a user's own sources use of Transformer Engine."""

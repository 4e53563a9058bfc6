"""What of Transformer Engine a user's own sources use, and what becomes of it, as text."""

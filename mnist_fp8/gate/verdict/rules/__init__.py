"""What a kind of difference means, and what to do about it."""

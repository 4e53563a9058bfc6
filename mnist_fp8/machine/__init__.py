"""What there is on this machine, and what of it does not fit together."""

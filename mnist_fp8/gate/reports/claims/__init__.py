"""Reports on claims, of one installation or many."""

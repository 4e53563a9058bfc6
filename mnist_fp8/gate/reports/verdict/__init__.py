"""Reports on the verdict on an upgrade."""

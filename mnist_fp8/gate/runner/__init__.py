"""Runs in environments: claims, measurements, and searches over releases."""

"""The record of an installation: measured entries, names and claims, as pure data with their JSON."""

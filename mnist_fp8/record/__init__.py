"""The record of an installation: measured entries and claims, as pure data with their JSON."""

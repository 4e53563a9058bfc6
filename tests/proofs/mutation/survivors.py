"""Why a mutant that can be observed is not caught, one by one."""

EXPLAINED: dict[str, str] = {}
"""The reason, by `proofs.mutation.path.Mutant.name`."""

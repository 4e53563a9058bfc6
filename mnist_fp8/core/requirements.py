"""What packages ask for."""

from packaging.requirements import Requirement


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement counts for the Python that runs, and for an extra if one is named."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

"""What a release of Transformer Engine saves, and what changes from one to another.

=========  ==========================================  ==========================================
releases   metadata of a layer                         parameters
=========  ==========================================  ==========================================
1.8-2.0    ``amax_{i,w,g}_N``, ``scale_{i,w,g}_N``     kernels are flat: (contracted, *features)
2.1-2.2    the same                                    kernels have the shape that a layer sees
2.3        ``{x,kernel,grad}[_N]_{scale,...}``,        the same
           no ``fp8_metas_axes`` beside them
2.4-       the same                                    no ``params_axes`` beside them; in boxes
=========  ==========================================  ==========================================
"""

import dataclasses

from packaging.version import InvalidVersion, Version

from mnist_fp8.core.errors import ConfigError

_FIRST, _SHAPED, _RENAMED, _BOXES = (1, 8), (2, 1), (2, 3), (2, 4)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """From one release to another.

    Attributes:
        old: the release that the checkpoint was saved under.
        new: the release that is to read it.
    """

    old: str
    new: str

    def __post_init__(self) -> None:
        """Refuse what cannot be crossed."""
        for release in (self.old, self.new):
            if _numbers(release) < _FIRST:
                raise ConfigError(f"TE {release} keeps FP8 metadata in another form: migrate reads 1.8 and later")
        for change, what in (
            (_RENAMED, "2.3 does not keep the oldest amax"),
            (_SHAPED, "2.1 kernels have no flat form"),
        ):
            if self._passes(change, self.new, self.old):
                raise ConfigError(f"a checkpoint of TE {self.old} cannot be made one of {self.new}: since {what}")

    @property
    def shapes_kernels(self) -> bool:
        """Whether kernels get the shape that a layer sees."""
        return self._passes(_SHAPED, self.old, self.new)

    @property
    def renames_metadata(self) -> bool:
        """Whether metadata get new names and a new meaning."""
        return self._passes(_RENAMED, self.old, self.new)

    @property
    def gone_axes(self) -> dict[str, str]:
        """The collections of axes that Transformer Engine no longer has beside its own, and since when."""
        gone = {}
        if self.renames_metadata:
            gone["fp8_metas_axes"] = "2.3"
        if self._passes(_BOXES, self.old, self.new):
            gone["params_axes"] = "2.4"
        return gone

    @property
    def drops_boxes(self) -> bool:
        """Whether there are no boxes any more."""
        return self._passes(_BOXES, self.new, self.old)

    @property
    def has_old_names(self) -> bool:
        """Whether the checkpoint has the metadata names from before 2.3."""
        return _numbers(self.old) < _RENAMED

    @property
    def knows_boxes(self) -> bool:
        """Whether the new release puts parameters into boxes."""
        return _numbers(self.new) >= _BOXES

    @staticmethod
    def _passes(change: tuple[int, int], older: str, newer: str) -> bool:
        return _numbers(older) < change <= _numbers(newer)


def _numbers(release: str) -> tuple[int, int]:
    try:
        version = Version(release)
    except InvalidVersion:
        raise ConfigError(f"{release!r} is not a release of Transformer Engine; expected one such as 2.20.2") from None
    return version.major, version.minor

"""What the property tests generate. Bounded, so that a shape costs one small compilation."""

import dataclasses
import math

from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class DenseCase:
    """A dense layer and its input.

    Attributes:
        batch: leading dimensions of the input.
        contracted: trailing dimensions, over which the layer contracts.
        features: dimensions that replace them.
        use_bias: whether the layer adds a bias.
    """

    batch: tuple[int, ...]
    contracted: tuple[int, ...]
    features: tuple[int, ...]
    use_bias: bool

    @property
    def axis(self) -> tuple[int, ...]:
        """The contracted axes, counted from the end."""
        return tuple(range(-len(self.contracted), 0))

    @property
    def rows(self) -> int:
        """Rows of the flattened input."""
        return math.prod(self.batch)


_sizes = st.integers(1, 24) | st.sampled_from([31, 33, 48])


def _dims(most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(_sizes, min_size=1, max_size=most).map(tuple)


dense_cases: st.SearchStrategy[DenseCase] = st.builds(
    DenseCase, batch=_dims(3), contracted=_dims(2), features=_dims(2), use_bias=st.booleans()
).filter(lambda case: case.rows <= 512 and case.rows * math.prod(case.contracted + case.features) <= 2**20)
"""Dense layers over one or two axes, with one or two features, odd sizes and single rows included."""

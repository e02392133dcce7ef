"""A share of every batch, for one of several processes that train one network together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One of ``count`` equal parts, ``index`` from 0."""

    index: int
    count: int

    def of_batch(self, step: int, batch_size: int) -> slice:
        """Where this part of batch ``step`` lies in the epoch's order."""
        size = batch_size // self.count
        start = step * batch_size + self.index * size
        return slice(start, start + size)


WHOLE = Part(0, 1)

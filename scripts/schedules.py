"""Which schedules of ``engine=pipeline`` can be measured."""

from collections.abc import Iterator, Sequence

import torch

from trainer.engines.pipeline import Pipeline
from trainer.errors import SettingError

CONTENDERS = 3
"""How many of them are timed in every round: of several that are close, one trial does not show the best."""


def possible(
    names: Sequence[str], microbatches: Sequence[int], batch_size: int, ranks: int
) -> Iterator[tuple[str, list[int]]]:
    """The schedules of engine=pipeline with those numbers of micro-batches that they can do on so many ranks of
    this machine; prints what is left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in names:
        counts = []
        for count in microbatches:
            try:
                engine = Pipeline(name, count, batch_size)
                engine.check_device(device)
                engine.place([1.0] * engine.blocks(ranks), ranks)
            except SettingError as error:
                print(f"  not measured: {error}")
            else:
                counts.append(count)
        if counts:
            yield name, counts

"""When Python searches for garbage: not while a job starts, and never among what was there when its training began.

A search goes through all objects of the process, and importing torch leaves a million of them. While modules are
imported and settings composed, Python would search again and again and find nothing; in training, each search would
hold up a step. So the entry, ``trainer/main.py``, begins without.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def searched_from_now() -> Iterator[None]:
    """Inside, garbage is searched for among what is made from now on; afterwards among everything."""
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()

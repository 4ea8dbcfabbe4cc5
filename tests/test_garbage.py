"""When garbage is searched for."""

import gc

import pytest

from trainer.garbage import search_put_off, searched_from_now


def test_no_search_while_it_is_put_off():
    with search_put_off():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), search_put_off():
        raise ValueError
    assert gc.isenabled()


def test_what_was_there_before_is_left_alone_until_the_end():
    before = gc.get_freeze_count()
    with search_put_off():
        cycle: list[object] = []
        cycle.append(cycle)
        number = id(cycle)
        with searched_from_now():
            assert gc.isenabled() and gc.get_freeze_count() > before
            del cycle
            gc.collect()
            assert number not in map(id, gc.get_objects())  # frozen: no generation has it
        assert gc.get_freeze_count() == 0
        assert gc.collect() > 0

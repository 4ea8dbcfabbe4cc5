"""Weights by step: what is followed when, whatever the timing, and nothing left behind."""

import threading
import time
from datetime import timedelta

import pytest
import torch
from torch import Tensor, nn

from trainer.clock import Clock
from trainer.errors import PacketError, PeerError
from trainer.local_losses.base import Refresh
from trainer.transport.channels import LocalChannel
from trainer.transport.weights import Publisher, Subscriber

SECONDS = timedelta(seconds=20)


class Pair:
    """A unit whose weight says after which step it is, and a follower that writes down what it is given."""

    def __init__(self, refresh: Refresh, timeout: timedelta = SECONDS) -> None:
        self.unit = nn.BatchNorm1d(1)
        self.followed: list[int] = []
        self.channel, clock = LocalChannel(), Clock(torch.device("cpu"))
        self.publisher = Publisher(self.channel, "layer", self.unit, refresh)
        self.subscriber = Subscriber(self.channel, "layer", self._follow, refresh, clock, timeout)

    def _follow(self, weights: dict[str, Tensor]) -> None:
        assert weights.keys() == self.unit.state_dict().keys()  # the statistics of batch norms too
        self.followed.append(int(weights["weight"]))

    def learn(self, step: int) -> None:
        self.unit.weight.data.fill_(step)
        self.publisher.after(step)

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.close()
        assert self.channel._messages.empty()


@pytest.mark.parametrize("every, lag", [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (5, 4), (4, 9)])
def test_what_is_followed_in_a_step_depends_on_the_lag_alone(every: int, lag: int) -> None:
    pair = Pair(Refresh(every, lag))
    for step in range(1, 13):
        pair.subscriber.before(step)
        assert pair.followed == [s for s in range(every, step, every) if s <= step - lag]
        pair.learn(step)
    pair.close()


@pytest.mark.parametrize("lag", [1, 3])
def test_a_follower_that_is_ahead_waits_and_one_that_is_late_sees_the_same(lag: int) -> None:
    for publisher_delay, subscriber_delay in ((0.01, 0.0), (0.0, 0.01)):
        pair = Pair(Refresh(1, lag))
        ready = threading.Semaphore(0)

        def publish(pair: Pair = pair, ready: threading.Semaphore = ready, delay: float = publisher_delay) -> None:
            for step in range(1, 9):
                ready.acquire()  # its packet has come
                time.sleep(delay)
                pair.learn(step)

        thread = threading.Thread(target=publish)
        thread.start()
        seen = []
        for step in range(1, 9):
            ready.release()
            time.sleep(subscriber_delay)
            pair.subscriber.before(step)
            seen.append(len(pair.followed))
        thread.join()
        pair.close()
        assert seen == [max(0, step - lag) for step in range(1, 9)]


@pytest.mark.parametrize("every, lag, stop", [(1, 4, 6), (2, 3, 5), (3, 2, 7), (1, 1, 3), (5, 4, 2)])
def test_a_run_goes_on_from_a_saved_state_as_if_never_stopped(every: int, lag: int, stop: int) -> None:
    refresh = Refresh(every, lag)
    first = Pair(refresh)
    for step in range(1, stop + 1):
        first.subscriber.before(step)
        first.learn(step)
    state = {**first.publisher.state(), **first.subscriber.state(), "published.other.1.weight": torch.zeros(1)}
    first.close()
    second = Pair(refresh)
    second.subscriber.resume(stop, state)
    second.publisher.resume(stop, state)
    for step in range(stop + 1, 13):
        second.subscriber.before(step)
        second.learn(step)
    second.close()
    assert first.followed + second.followed == [s for s in range(every, 13, every) if s <= 12 - lag]


def test_a_run_that_goes_on_with_other_cuts_follows_the_weights_as_they_are() -> None:
    pair = Pair(Refresh(1, 3))
    pair.unit.weight.data.fill_(50)
    for end in (pair.subscriber, pair.publisher):
        end.resume(10, {})
    for step in (11, 12, 13, 14):
        pair.subscriber.before(step)
        pair.learn(step)
    pair.close()
    assert pair.followed == [50, 50, 50, 11]


def test_what_is_published_is_the_unit_as_it_was() -> None:
    pair = Pair(Refresh(1, 1))
    pair.learn(1)
    pair.unit.weight.data.fill_(99)
    pair.subscriber.before(2)
    assert pair.followed == [1]


def test_weights_that_do_not_come_are_an_error_in_one_sentence() -> None:
    pair = Pair(Refresh(1, 1), timeout=timedelta(seconds=0.05))
    with pytest.raises(PeerError, match="the weights of layer after step 1 did not come within 0.05 s; the rank that"):
        pair.subscriber.before(2)


def test_weights_of_another_step_are_refused() -> None:
    pair = Pair(Refresh(1, 1))
    pair.learn(2)
    with pytest.raises(PacketError, match="the weights of layer after step 2 came where step 1 was due"):
        pair.subscriber.before(2)


def test_refresh_steps() -> None:
    assert list(Refresh(3, 1).steps(0, 9)) == [3, 6, 9]
    assert list(Refresh(3, 1).steps(3, 8)) == [6]
    assert list(Refresh(1, 4).steps(-2, 2)) == [1, 2]

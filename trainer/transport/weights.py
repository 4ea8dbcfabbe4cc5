"""Weights on their way from a block to the one before it, by step: the result does not depend on when they arrive.

In step t a subscriber has applied every publication of a step up to t - lag, in order, and no later one. It takes what
is left when the run ends.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from threading import Thread
from typing import Protocol

from torch import Tensor, nn

from trainer.clock import Clock
from trainer.errors import PacketError, PeerError
from trainer.hostcopy import HostCopy
from trainer.local_losses.base import Refresh
from trainer.transport.channels import Channel


class Exchange(Protocol):
    """One end of an exchange of weights, as its block sees it."""

    def before(self, step: int) -> None:
        """Called before the local loss of a training step is computed."""
        ...

    def after(self, step: int) -> None:
        """Called after the block's update of a training step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of this end beside the block's weights, as of the block's last step."""
        ...

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Called before the first step of a run that goes on after step ``done``, with the block's weights in place;
        ``state`` has what both ends of this and of other exchanges gave."""
        ...

    def close(self) -> None:
        """Called when the run is over, after the block's last packet has left."""
        ...


class Publisher:
    """The end that makes a unit's weights known, from a thread of its own.

    It holds what the reader has not applied yet. So a checkpoint of both blocks after the same step is whole with
    ``state``, although the reader may not have received those weights, and nobody has to wait for anybody.
    """

    def __init__(self, channel: Channel, name: str, unit: nn.Module, refresh: Refresh) -> None:
        """Publishes the state of ``unit``, whose name is ``name``."""
        self._channel, self._name, self._unit, self._refresh = channel, name, unit, refresh
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"publish-{name}")
        self._sent: deque[Future[None]] = deque()
        self._held: dict[int, dict[str, HostCopy]] = {}

    def before(self, step: int) -> None:
        """Nothing: a publisher waits for nobody."""

    def after(self, step: int) -> None:
        """Publish the weights if a refresh is due after ``step``."""
        self._held = {held: copies for held, copies in self._held.items() if held > step - self._refresh.lag}
        if step % self._refresh.every == 0:
            self._publish(step, self._unit.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The publications that the reader has not applied yet, by ``published.<unit>.<step>.<name>``."""
        return {
            f"{self._prefix(step)}{name}": copy.wait()
            for step, copies in self._held.items()
            for name, copy in copies.items()
        }

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Publish again what the reader has not applied. Where ``state`` does not have it, because the model was cut
        elsewhere before, the unit's weights as they are stand in."""
        for step in self._refresh.steps(done - self._refresh.lag, done):
            prefix = self._prefix(step)
            saved = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            self._publish(step, saved or self._unit.state_dict())

    def close(self) -> None:
        """Wait until everything has been taken."""
        while self._sent:
            self._sent.popleft().result()
        self._thread.shutdown()

    def _prefix(self, step: int) -> str:
        return f"published.{self._name}.{step}."

    def _publish(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        copies = {name: HostCopy(tensor) for name, tensor in tensors.items()}
        self._held[step] = copies
        self._sent.append(self._thread.submit(self._send, step, copies))
        while self._sent and self._sent[0].done():
            self._sent.popleft().result()

    def _send(self, step: int, copies: dict[str, HostCopy]) -> None:
        self._channel.send(step, {name: copy.wait() for name, copy in copies.items()})


class Subscriber:
    """The end that follows a unit's weights, which are fetched ahead of their time in the background."""

    def __init__(
        self,
        channel: Channel,
        name: str,
        follow: Callable[[Mapping[str, Tensor]], None],
        refresh: Refresh,
        clock: Clock,
        timeout: timedelta,
    ) -> None:
        """Hands each publication to ``follow`` when it is due.

        Args:
            channel: where they come.
            name: the unit's name.
            follow: takes over the weights.
            refresh: how often and how late.
            clock: told of every wait.
            timeout: how long to wait for a publication.
        """
        self._channel, self._name, self._follow, self._refresh = channel, name, follow, refresh
        self._clock, self._timeout = clock, timeout
        self._next = refresh.every
        self._step = 0
        self._coming: Future[dict[str, Tensor]] | None = None

    def before(self, step: int) -> None:
        """Follow every refresh that is due in ``step``."""
        self._step = step
        while self._next <= step - self._refresh.lag:
            with self._clock.waiting():
                weights = self._take()
            self._follow(weights)
        # The packet of this step has been sent, so the weights after it are sure to come.
        self._fetch_up_to(step)

    def after(self, step: int) -> None:
        """Nothing: a subscriber changes in ``before`` alone."""

    def state(self) -> dict[str, Tensor]:
        """Nothing: what is under way belongs to the publisher, what has been applied to the block."""
        return {}

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Go on with the first refresh that is not due up to step ``done``."""
        self._step = done
        self._next = next(iter(self._refresh.steps(done - self._refresh.lag, done + self._refresh.every)))

    def close(self) -> None:
        """Take what is published but never due, which the publisher waits for."""
        while self._next <= self._step:
            self._take()

    def _fetch_up_to(self, step: int) -> None:
        if self._coming is None and self._next <= step:
            self._coming = Future()
            # A daemon, so that a run that fails meanwhile can end: what it waits for may never come then.
            fetch = Thread(
                target=self._fetch, args=(self._next, self._coming), name=f"follow-{self._name}", daemon=True
            )
            fetch.start()

    def _fetch(self, step: int, coming: Future[dict[str, Tensor]]) -> None:
        try:
            sent, weights = self._channel.receive()
            if sent != step:
                raise PacketError(f"the weights of {self._name} after step {sent} came where step {step} was due")
            coming.set_result(weights)
        except Exception as error:  # handed to whoever asks for the result
            coming.set_exception(error)

    def _take(self) -> dict[str, Tensor]:
        """The next publication; waits for it where it has not come."""
        self._fetch_up_to(self._next)
        assert self._coming is not None
        try:
            weights = self._coming.result(self._timeout.total_seconds())
        except TimeoutError as error:
            raise PeerError(
                f"the weights of {self._name} after step {self._next} did not come within "
                f"{self._timeout.total_seconds():g} s; the rank that trains it has stopped or hangs"
            ) from error
        self._coming = None
        self._next += self._refresh.every
        return weights

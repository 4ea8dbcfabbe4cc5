"""How an early end that somebody asked for gets to every rank: rank 0 decides which step is the last, and each rank
learns of it before it begins a step beyond."""

from typing import Protocol

from trainer.errors import PeerError
from trainer.hostcopy import DeviceEvent
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.stop import StopRequest
from trainer.transport.remote import STOP_LEAD

MEETING_STEPS = 8
"""How often replicas look whether the run ends."""


class Ending(Protocol):
    """What a rank asks between two steps whether the run ends early."""

    def trained(self, step: int) -> None:
        """Training step ``step`` is done on this rank."""
        ...

    def tested(self, step: int, batch: int) -> None:
        """Batch number ``batch`` of the test after step ``step`` is done on this rank."""
        ...


class EndByHeaders:
    """For ranks in a chain: the headers of packets carry the last step from rank 0 down the pipeline."""

    def __init__(self, plan: Plan, stop: StopRequest, rank: int, ranks: int) -> None:
        self._plan, self._stop, self._rank = plan, stop, rank
        self._lead = STOP_LEAD if ranks > 1 else 0  # alone, nothing is under way

    def trained(self, step: int) -> None:
        """On rank 0, end the plan where that was asked for: beyond what is under way to other ranks."""
        self._end_where_asked(step + self._lead)

    def tested(self, step: int, batch: int) -> None:
        """The same; at least one step more, so that the end is a step's and not a test's."""
        self._end_where_asked(step + max(1, self._lead - (self._plan.test_batches - batch)))

    def _end_where_asked(self, last_step: int) -> None:
        if self._rank == 0 and self._stop.signal is not None:
            self._plan.stop(last_step, evaluate=False)


class EndTogether:
    """For replicas, which no packet connects. They average their gradients in every step, so none is done with a step
    that rank 0 has not begun: what rank 0 wrote before it is there for all of them after it. A GPU's step is done when
    the device has got there, and its host may be far ahead; so the host waits for it at a meeting."""

    def __init__(self, plan: Plan, stop: StopRequest, rank: Rank) -> None:
        self._plan, self._stop, self._rank = plan, stop, rank

    def trained(self, step: int) -> None:
        """On rank 0, announce the next meeting as the end where that was asked for; at a meeting, look for it. Raises
        ``PeerError`` where a rank does not come to a meeting in time."""
        if self._rank.rank == 0 and self._stop.signal is not None:
            self._rank.control.agree("end", lambda: (step // MEETING_STEPS + 1) * MEETING_STEPS)
        if step % MEETING_STEPS:
            return
        try:
            DeviceEvent(self._rank.device).wait(self._rank.timeout)
        except TimeoutError as error:
            raise PeerError(f"a rank went away or did not answer in time during train step {step}") from error
        if (end := self._rank.control.agreed("end")) is not None:
            self._plan.stop(end, evaluate=False)

    def tested(self, step: int, batch: int) -> None:
        """Nothing: the next step is soon enough."""

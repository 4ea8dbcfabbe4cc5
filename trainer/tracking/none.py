"""No tracker: nothing is written beyond the run directory's own files."""

from trainer.reporting.records import Tracker


class NoTracker(Tracker):
    """Ignores everything."""

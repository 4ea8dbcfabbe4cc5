"""No tracker: nothing is written beyond the run directory's own files."""

from trainer.reporting.listener import Tracker


class NoTracker(Tracker):
    """Ignores everything."""

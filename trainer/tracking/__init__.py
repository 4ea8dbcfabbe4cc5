"""Experiment trackers, listeners that keep a run's metrics somewhere else; the yaml of the group ``tracker`` names
one."""

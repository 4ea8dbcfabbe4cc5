"""Engines: how a run executes. Each is a class that a yaml of the group ``engine`` names."""

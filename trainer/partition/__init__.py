"""Partition: where a model is cut, by what cost, and which rank owns which block."""

"""Datasets, each one file that loads images and labels, and the source that feeds them to the first block."""

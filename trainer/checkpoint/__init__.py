"""Checkpoints: what a run goes on from after it was stopped, killed, or moved to other ranks.

A checkpoint is a folder ``checkpoints/step-00000050`` with one safetensors file a rank and ``manifest.json``, which
names the files with their sizes and SHA-256 sums and is written last: no manifest, no checkpoint. Everything is kept
under global names, so the files do not say how the run was cut or placed. Nothing in it is ever unpickled.
"""

"""Pipeline parallelism with local learning."""

__version__ = "0.1.0"

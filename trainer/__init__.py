"""Pipeline parallelism with local learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.finished import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import ``load`` when it is asked for, so that importing the package costs nothing."""
    if name == "load":
        from trainer.finished import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

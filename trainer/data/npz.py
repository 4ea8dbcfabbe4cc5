"""A user's own images from one ``.npz`` file."""

import zipfile
import zlib
from pathlib import Path

import torch

from trainer.data.images import Images, Split, checked
from trainer.errors import SettingError, at_least

KEYS = ("x_train", "y_train", "x_test", "y_test")


class Npz:
    """A file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``: images uint8 ``(N, H, W, C)``, labels
    whole numbers ``(N,)``."""

    def __init__(self, path: str | None, num_classes: int | None = None) -> None:
        """The number of classes, where not given, is the largest label plus one."""
        if path is None:
            raise SettingError("dataset.path is not set; dataset=npz reads dataset.path=FILE.npz")
        at_least(2, {"dataset.num_classes": num_classes})
        self._path, self._classes = Path(path).expanduser(), num_classes

    def load(self) -> Images:
        """Read and check the file; nothing in it is unpickled."""
        import numpy as np

        if not self._path.is_file():
            raise SettingError(
                f"dataset.path={self._path} is no file; it must be an .npz file with the arrays {', '.join(KEYS)}"
            )
        try:
            self._path.open("rb").close()
        except OSError as error:
            raise SettingError(f"dataset.path={self._path} can't be read: {error.strerror}") from error
        if not zipfile.is_zipfile(self._path):  # numpy reads other files as well, as something else
            raise SettingError(
                f"dataset.path={self._path} can't be read as an .npz file of plain arrays: it is no archive, or damaged"
            )
        try:
            with np.load(self._path, allow_pickle=False) as file:
                missing = [key for key in KEYS if key not in file]
                if missing:
                    raise SettingError(
                        f"dataset.path={self._path} lacks {', '.join(missing)}; it has {', '.join(file) or 'nothing'}"
                    )
                arrays = {key: file[key] for key in KEYS}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError) as error:
            raise SettingError(
                f"dataset.path={self._path} can't be read as an .npz file of plain arrays: {error}"
            ) from error
        for key, array in arrays.items():
            if key.startswith("x") and (array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape[1:]):
                raise SettingError(
                    f"{key} in {self._path} is {array.dtype} of shape {array.shape}; images must be uint8 of "
                    f"shape (N, H, W, C)"
                )
            if key.startswith("x") and array.shape[3] > 4 >= array.shape[1]:
                raise SettingError(
                    f"{key} in {self._path} has the shape {array.shape}, which looks like (N, C, H, W); images must be "
                    f"of shape (N, H, W, C): numpy.moveaxis({key}, 1, 3)"
                )
            if key.startswith("y") and (array.dtype.kind not in "iu" or array.ndim != 1):
                raise SettingError(
                    f"{key} in {self._path} is {array.dtype} of shape {array.shape}; labels must be whole "
                    f"numbers of shape (N,)"
                )
        train, test = (
            Split(
                torch.from_numpy(arrays[f"x_{name}"]).permute(0, 3, 1, 2),
                torch.from_numpy(arrays[f"y_{name}"].astype(np.int64)),
            )
            for name in ("train", "test")
        )
        return checked(train, test, self._classes, str(self._path))

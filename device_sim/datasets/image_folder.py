"""A user's own photos: ``root/<device>/<class>/*.png|jpg``, one folder per phone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets.extras import require
from device_sim.datasets.folders import SHOWN, coded, files_by_device_and_class, layout
from device_sim.datasets.records import Dataset, LoadRequest, check_array_bytes
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError

_SUFFIXES, _KINDS = (".png", ".jpg", ".jpeg"), "png|jpg"
_MODES = {"rgb": ("RGB", 3), "gray": ("L", 1)}


def load_image_folder(request: LoadRequest) -> Dataset:
    """Returns the pictures as ``uint8[n, height, width, channels]``; each device folder is a natural device.

    Devices and classes are numbered by sorted folder name. EXIF rotation is applied; with ``image_size`` pictures are
    cropped at the centre to its aspect and scaled, without it all must have one size. Needs Pillow.
    """
    root = request.path
    if root is None or not root.is_dir():
        raise DataError(f"image-folder: {root or 'no path given'} is not a folder; {layout(_KINDS)}.")
    require("PIL", "image-folder")
    files = files_by_device_and_class(root, _SUFFIXES, _KINDS)
    labels, y, device_of = coded(files)
    x = _read_pictures([path for _, _, path in files], request.options.image_size, request.options.color or "rgb")
    return split_dataset(
        name=root.name,
        x=x,
        y=y,
        labels=labels,
        request=request,
        source=f"pictures in {root}",
        device_of=device_of,
    )


def _read_pictures(paths: list[Path], size: tuple[int, int] | None, color: str) -> np.ndarray:
    """Returns ``uint8[n, height, width, channels]``; every file that cannot be read is named in one error."""
    x: np.ndarray | None = None
    broken = []
    for i, path in enumerate(paths):
        try:
            picture = _read_picture(path, size, color)
        except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, … on damaged files
            broken.append(f"{path}: {error}")
            continue
        if x is None:
            check_array_bytes("image-folder", (len(paths), *picture.shape), 1)
            x = np.zeros((len(paths), *picture.shape), np.uint8)
        if picture.shape != x.shape[1:]:
            raise DataError(
                f"{path}: {picture.shape[1]}×{picture.shape[0]} pixels, but the first picture is "
                f'{x.shape[2]}×{x.shape[1]}. Give data.image-size, e.g. "{x.shape[1]}x{x.shape[2]}", to scale them all.'
            )
        x[i] = picture
    if x is None or broken:
        more = f"\n  and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        listed = "\n  ".join(broken[:SHOWN])
        raise DataError(f"{len(broken)} of {len(paths)} pictures cannot be read:\n  {listed}{more}")
    return x


def _read_picture(path: Path, size: tuple[int, int] | None, color: str) -> np.ndarray:
    from PIL import Image, ImageOps

    mode, channels = _MODES[color]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            if file.mode[0] in "IF":  # converting 16-bit and float pictures to 8 bit clips them to white
                raise ValueError(f"pixel mode {file.mode} is not 8 bit; convert it to 8-bit RGB or gray")
            picture: Any = ImageOps.exif_transpose(file).convert(mode)
    if size is not None:
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(picture.height, picture.width, channels)

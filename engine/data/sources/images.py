"""A folder of pictures, one sub-folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.samples import wrong
from engine.data.sources.declare import existing, source

if TYPE_CHECKING:
    from engine.data.sources.pictures import Pictures

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}
VALIDATION = ("val", "valid", "validation")


@source(task="classification")
def images(path: str, size: int = 64, grey: bool = False) -> Any:
    """Pictures in a folder with one sub-folder a class, or with two such folders in it, train and val.

    Pictures are cut to their middle square and scaled to one size, with values 0 to 1. Up to 1 GiB of them (as float32) are
    held in memory; more are read when they are needed (data.workers helps), and then they are not standardized.

    Args:
        path: the folder, seen from the working directory
        size: height and width that each picture is scaled to, in pixels
        grey: one channel instead of red, green and blue
    """
    from engine.data.sources.pictures import Pictures, open_file, samples_of

    root = existing(path, folder=True)
    below = {folder.name.lower(): folder for folder in _folders(root)}
    held = next((below[name] for name in VALIDATION if name in below), None)
    training = below.get("train", root) if held is not None else root
    if held is not None and training is root:
        raise wrong("data.path", f"data.path = {path!r} has a folder {held.name!r} but none that is called 'train' beside it")
    classes = [folder.name for folder in _folders(training)]
    if not classes:
        raise wrong("data.path", f"data.path = {path!r} has no sub-folders: pictures go into one sub-folder for each class")

    def pictures(folder: Path) -> Pictures:
        files, targets = [], []
        for kind in _folders(folder):
            if kind.name not in classes:
                raise wrong("data.path", f"data.path: {str(kind)!r} is a class that {str(training)!r} does not have")
            found = sorted(file for file in kind.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            if not found:
                raise wrong("data.path", f"data.path: {str(kind)!r} holds no pictures ({', '.join(sorted(ENDINGS))})")
            files += found
            targets += [classes.index(kind.name)] * len(found)
        return Pictures(files, targets, classes, open_one=open_file, size=size, grey=grey)

    return samples_of(pictures(training), pictures(held) if held is not None else None)


def _folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))

"""What tools call the same metric, by the one name that it has here."""

from __future__ import annotations

from functools import lru_cache

SPLITS = ("test", "train", "val")
_SPLIT = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "validation", "eval", "evaluation", "dev"), "val"),
}
_RATES = ("lr", "learning_rate", "train/lr", "train/learning_rate")


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """ "train/loss" for "train_loss", "Loss/train" and "loss"; "val/…" for "eval_…" and "validation/…"; "lr".

    Any other name stays as it is.
    """
    first, slash, rest = name.partition("/")
    if name in _RATES or name.startswith("lr-"):
        return "lr"
    if name == "loss":
        return "train/loss"
    if slash and rest and first.lower() in _SPLIT:
        return f"{_SPLIT[first.lower()]}/{rest}"
    if slash and first and rest.lower() in _SPLIT:
        return f"{_SPLIT[rest.lower()]}/{first.lower()}"
    before, line, after = name.partition("_")
    if not slash and line and after and before.lower() in _SPLIT:
        return f"{_SPLIT[before.lower()]}/{after}"
    return name


def group(name: str) -> str:
    """The metric without its split: what is drawn on one chart."""
    split, _, rest = name.partition("/")
    return rest if rest and split in SPLITS else name

"""Text files, to predict the next character."""

from __future__ import annotations

from engine.data.samples import Samples, wrong
from engine.data.sources.declare import at_least, existing, source

LIMIT = 2**30  # bytes of all windows together


@source(task="text")
def text(
    path: str,
    context: int = 64,
    stride: int | None = None,
    validation: float = 0.2,
    fold: int | None = None,
    folds: int = 5,
) -> Samples:
    """A text file (UTF-8), cut into windows of characters: at each place the next character is to be predicted.

    The vocabulary is the sorted characters of the whole file. The end of the text is held back for validation (with a fold:
    the k-th stretch), before it is cut, so that no window reaches over. Validation windows lie end to end.

    Args:
        path: the file, seen from the working directory
        context: characters in a window
        stride: characters from one training window's start to the next; left out: as many as a window has
    """
    import numpy
    from numpy.lib.stride_tricks import sliding_window_view

    from engine.data.order import fold_bounds

    step = context if stride is None else stride
    at_least(1, context=context, stride=step)
    try:
        letters = existing(path).read_text(encoding="utf-8").encode("utf-32-le")
    except UnicodeDecodeError as error:
        raise wrong("data.path", f"data.path = {path!r} is not a UTF-8 text ({error})") from None
    vocabulary, tokens = numpy.unique(numpy.frombuffer(letters, numpy.uint32), return_inverse=True)
    tokens = tokens.astype(numpy.int64)
    length = len(tokens)
    first, last = (length - round(length * validation), length) if fold is None else fold_bounds(length, fold, folds)

    def windows(begin: int, end: int, step: int) -> numpy.ndarray:  # (N, context + 1): the inputs and one character more
        if end - begin <= context:
            return numpy.empty((0, context + 1), numpy.int64)
        return sliding_window_view(tokens[begin:end], context + 1)[::step]

    training = [windows(0, first, step), windows(last, length, step)]
    held = windows(first, last, context)
    count = sum(map(len, training))
    if not count or (last > first and not len(held)):
        part = "validation" if count else "training"
        raise wrong(
            "data.context", f"data.context = {context} is too long: of the {length} characters of {path} {part} gets no window"
        )
    if count * context * 16 > LIMIT:
        least = -(-length * context * 16 // LIMIT)
        raise wrong(
            "data.stride",
            f"data.stride = {step} makes {count:,} windows of {context} characters, {count * context * 16 / 2**30:.1f} GiB; "
            f"at least {least} keeps them below 1 GiB",
        )
    train = numpy.concatenate(training)
    return Samples(
        inputs=train[:, :-1],
        targets=train[:, 1:],
        validation=(held[:, :-1], held[:, 1:]) if last > first else None,
        task="text",
        classes=tuple(map(chr, vocabulary.tolist())),
    )

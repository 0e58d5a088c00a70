"""`predict`: a run's answers to the rows of a file."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from engine.cli.output import Stream
from engine.errors import EpochalError


def predict(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Write the predictions to a file, or to standard output."""
    from engine.export import refuse_target, write_bytes
    from engine.inference.prediction import predict as run_predict

    target = None if arguments.output is None else Path(arguments.output)
    if target is not None:
        if target.suffix.lower() not in ("", ".csv", ".parquet"):
            raise EpochalError(f"--output {arguments.output} must end in .csv or .parquet")
        refuse_target(target, arguments.force)
    found = run_predict(
        arguments.run,
        arguments.data,
        arguments.checkpoint,
        device=arguments.device or "auto",
        batch_size=arguments.batch_size,
        runs=arguments.runs,
    )
    for note in found.notes:
        err.line(f"epochal: {note}")
    table = found.table(probabilities=arguments.probabilities)
    if target is None:
        out.write(table.to_csv(index=False))
        out.flush()
        return 0
    if target.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        content = buffer.getvalue()
    else:
        content = table.to_csv(index=False).encode()
    write_bytes(target, content, force=arguments.force)
    out.line(f"{target} is written: {len(found):,} prediction{'s' if len(found) > 1 else ''}")
    return 0

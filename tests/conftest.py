"""One thread for each operation, here and in subprocesses: small models on a shared machine are quickest so."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported by any test

"""The store in which the processes of one attempt find each other."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

_LOOK_SECONDS = 0.02


def store_of_this_attempt(timeout: timedelta) -> Store | None:
    """A part of the store of torch's agent that no earlier attempt has written to; None where the agent has none.

    The agent keeps its store when it begins its processes once more. They would find the addresses of those that have died, and
    wait for them (pytorch issue 135712). No number that torch gives them is sure to be the same on all machines.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    mine = uuid.uuid4().hex
    if rank == 0:
        _lead(store, mine, count, time.monotonic() + timeout.total_seconds())
        return PrefixStore(f"epochal/{mine}", store)
    store.set(f"epochal/here/{rank}", mine)
    attempt = store.get(f"epochal/answer/{mine}").decode()  # waits for it
    store.set(f"epochal/{attempt}/joined/{rank}", "yes")
    return PrefixStore(f"epochal/{attempt}", store)


def _lead(store: Store, attempt: str, count: int, deadline: float) -> None:
    """Answer whoever is here, the dead of earlier attempts as well, until all of this one have joined."""
    missing, answered = set(range(1, count)), set()
    while missing:
        for rank in sorted(missing):
            if store.check([f"epochal/{attempt}/joined/{rank}"]):
                missing.discard(rank)
            elif store.check([f"epochal/here/{rank}"]) and (name := store.get(f"epochal/here/{rank}").decode()) not in answered:
                store.set(f"epochal/answer/{name}", attempt)
                answered.add(name)
        if missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"ranks {', '.join(map(str, sorted(missing)))} did not come")
            time.sleep(_LOOK_SECONDS)

"""What keeps torch's compiler, a second or more of imports, out of a process that does not compile."""

from __future__ import annotations

from typing import Any

OPTIMIZER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def spare_the_compiler(cls: Any, *names: str) -> None:
    """Let these methods of a class of torch be called without importing torch._dynamo.

    torch keeps them from being traced by a wrapper that imports the compiler when it is first called, to wrap the method once
    more, and keeps what it has made as an attribute. Nothing here is traced through them: the method itself will do.
    """
    for name in names:
        method = getattr(cls, name)
        function = getattr(method, "__wrapped__", None)
        if function is not None and method.__code__.co_filename.endswith("_compile.py"):
            function.__dict__.setdefault("__dynamo_disable", function)

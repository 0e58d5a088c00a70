"""`python -m tests.screenshots [DIR]`: the README's pictures, of the real program while it trains (`make screenshots`)."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDE, SMALL = (120, 40), (80, 24)
RECIPE: dict[str, Any] = {
    "name": "digits-mlp",
    "data": {"name": "digits", "batch_size": 16},
    "model": {"name": "mlp", "hidden": [512, 256]},
    "optimizer": {"name": "SGD", "lr": 0.02, "momentum": 0.5},
    "training": {"epochs": 120, "threads": 1, "execution": "eager"},
}
OTHER = {
    **RECIPE,
    "name": "digits-adam",
    "optimizer": {"name": "Adam", "lr": 1e-4},
    "training": {**RECIPE["training"], "epochs": 40},
}
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture loads nothing from elsewhere: the reader's own font will do


async def pictures(where: Path) -> None:
    from tui.app import Console
    from tui.door import Engine

    console = Console(Engine(Path("runs")), RECIPE, source="digits.toml")
    console.animation_level = "none"

    async def until(condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # and seen by the screen

    def text(app: Console) -> str:
        return "\n".join(strip.text for strip in app.screen._compositor.render_strips())

    def take(name: str) -> None:
        console.clear_notifications()
        picture = FONTS.sub("", console.export_screenshot(title=f"epochal · {console.size.width}x{console.size.height}"))
        (where / f"{name}.svg").write_text(picture, encoding="utf-8")
        print(where / f"{name}.svg")

    async with console.run_test(size=WIDE) as pilot:
        await until(lambda: console.form.complete)
        await until(lambda: "measuring" not in text(console))
        take("form")
        await pilot.press("r")
        await until(lambda: console.session is not None and len(console.session.history.epochs) >= 6)
        session = console.session
        assert session is not None
        await pilot.resize_terminal(*SMALL)
        await until(lambda: len(session.history.epochs) >= 10)
        take("small")
        await pilot.resize_terminal(*WIDE)
        await pilot.press("e")
        await pilot.press("enter")  # half the learning rate
        await until(lambda: session.history.settings or session.history.ended)
        take("training")
        await until(lambda: session.history.ended)
        console.start(OTHER)
        await until(lambda: console.session is not session and console.session and console.session.history.ended)
        await pilot.press("a")
        await asyncio.sleep(2.0)
        await pilot.press("space", "down", "space")
        await asyncio.sleep(1.0)
        await pilot.press("v")
        await asyncio.sleep(2.0)
        take("overlay")


def main() -> None:
    where = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / ".assets").resolve()
    where.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        asyncio.run(pictures(where))
        os.chdir(where)


if __name__ == "__main__":
    main()

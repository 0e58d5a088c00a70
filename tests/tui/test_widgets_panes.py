"""Output, device and recipe panes."""

import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from tests.tui.conftest import until
from tests.tui.scripted import line_with, screen_lines, screen_text
from tui.widgets.device import DevicePane, device_rows
from tui.widgets.device_reader import DeviceReader, DeviceReading
from tui.widgets.output import OutputPane
from tui.widgets.recipe_pane import RecipePane, recipe_rows
from tui.widgets.rows import length


class Output(App):
    CSS = "OutputPane { height: 100%; }"

    def compose(self) -> ComposeResult:
        yield OutputPane()


async def printed(*pieces: str, size=(60, 12)) -> list[str]:
    """What the pane shows of pieces added one after the other."""
    app = Output()
    async with app.run_test(size=size) as pilot:
        for piece in pieces:
            app.query_one(OutputPane).add(piece)
        await pilot.pause()
        return [line.strip("│╭╮╰╯ ─") for line in screen_lines(app)]


class TestOutput:
    async def test_lines_in_any_pieces(self):
        assert (await printed("one\ntw", "o\nthr", "ee"))[1:4] == ["one", "two", "three"]

    async def test_a_progress_bar_stays_one_line(self):
        bar = [f"\r{n}%|{'#' * (n // 10)}" for n in range(0, 101, 10)]
        lines = await printed("start\n", *bar, "\ndone\n")
        assert lines[1:4] == ["start", "100%|##########", "done"]

    async def test_line_ends_of_windows_even_when_cut_in_two(self):
        assert (await printed("one\r\ntwo\r", "\nthree\r\n"))[1:4] == ["one", "two", "three"]

    async def test_escapes_other_than_colours_are_dropped(self):
        lines = await printed("\x1b[2J\x1b[1;1Ha\x1b]0;title\x07b\x1b[31mred\x1b[0m \x1b[K\x07c\x1b(B", "d\x1b[", "2Ke")
        assert lines[1] == "abred cde"

    async def test_colours_are_kept(self):
        app = Output()
        async with app.run_test(size=(60, 12)) as pilot:
            app.query_one(OutputPane).add("\x1b[31mred\x1b[0m plain")
            await pilot.pause()
            segments = list(app.screen._compositor.render_strips()[1])
            red = next(segment for segment in segments if "red" in segment.text)
            other = next(segment for segment in segments if "plain" in segment.text)
            assert red.style.color != other.style.color

    async def test_markup_is_plain_text(self):
        assert (await printed("[bold]x[/bold] [64, 32]\n"))[1] == "[bold]x[/bold] [64, 32]"

    async def test_it_is_bounded_and_shows_the_end(self):
        app = Output()
        async with app.run_test(size=(60, 12)) as pilot:
            pane = app.query_one(OutputPane)
            pane.add("".join(f"line {n}\n" for n in range(12_000)))
            await pilot.pause()
            assert "line 11999" in screen_text(app)
            pane.focus()
            await pilot.press("home")
            await pilot.pause()
            assert "line 7001" in screen_text(app)
            pane.add("more\n" * 10)
            await pilot.pause()
            assert "more" not in screen_text(app)  # scrolled away from the end

    async def test_a_pane_without_room_says_the_last_line_in_its_title(self):
        lines = await printed("first\nloading [64, 32]\n\n", size=(60, 2))
        assert "loading [64, 32]" in lines[0]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(alphabet="ab\n\r\t\x1b[]0;m31K\x07é漢\\P", max_size=30), max_size=8))
    def test_any_text_is_taken_and_holds_no_control_characters(self, pieces):
        pane = OutputPane()
        for piece in pieces:
            pane.add(piece)
        kept = "".join(pane._lines)
        assert not any(ord(character) < 32 and character != "\x1b" for character in kept)


class Scripted(DeviceReader):
    """A reader that says what it is told, and counts."""

    def __init__(self, reading: DeviceReading) -> None:
        super().__init__("cpu")
        self.reading = reading
        self.read_in: list[int] = []

    def read(self) -> DeviceReading:
        self.read_in.append(threading.get_ident())
        return self.reading


GIB = 2**30
GPU = DeviceReading(
    cpu_percent=12.0, process_percent=98.0, process_memory=2 * GIB, memory_used=11 * GIB, memory_total=128 * GIB, cores=16,
    gpu_name="NVIDIA H100", gpu_percent=78.0, gpu_memory_used=11 * GIB, gpu_memory_total=80 * GIB, gpu_celsius=61.0,
    gpu_watts=412.3,
)  # fmt: skip


class TestDevice:
    async def test_a_reading_on_the_screen(self):
        reader = Scripted(GPU)

        class One(App):
            def compose(self) -> ComposeResult:
                yield DevicePane(reader=reader)

        app = One()
        async with app.run_test(size=(40, 14)):
            await until(lambda: "61 °C" in screen_text(app))
            text = screen_text(app)
            for said in ("NVIDIA H100", "78%", "11.0 of 80.0 GiB", "61 °C  412 W", "12%", "11.0 of 128.0 GiB", "98% cpu"):
                assert said in text
            assert threading.get_ident() not in reader.read_in  # never on the thread that draws

    async def test_a_hidden_pane_reads_nothing(self):
        reader = Scripted(GPU)

        class One(App):
            CSS = "DevicePane { display: none; }"

            def compose(self) -> ComposeResult:
                yield DevicePane(reader=reader)

        app = One()
        async with app.run_test(size=(40, 14)) as pilot:
            await pilot.pause(0.1)
            assert reader.read_in == []

    def test_this_machine(self):
        reader = DeviceReader()
        first, second = reader.read(), reader.read()
        assert first.cpu_percent is None
        assert 0 <= second.cpu_percent <= 100
        assert 0 < second.memory_used < second.memory_total
        assert second.gpu_percent is None and second.note == ""

    def test_a_cuda_run_without_nvml_says_so(self, monkeypatch):
        pynvml = pytest.importorskip("pynvml")

        def fail() -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

        monkeypatch.setattr(pynvml, "nvmlInit", fail)
        reading = DeviceReader("cuda:0").read()
        assert "NVML" in reading.note
        assert reading.memory_total
        assert any("NVML" in text for row in device_rows(reading, 30) for text, _ in row)

    @pytest.mark.parametrize("width", [1, 10, 28, 80])
    def test_any_width(self, width):
        assert device_rows(GPU, width)
        assert device_rows(DeviceReading(), width) == []


VALUES = {
    "name": "digits-mlp",
    "seed": 0,
    "data": {"name": "digits", "batch_size": 64},
    "loss": {"name": "CrossEntropyLoss"},
    "optimizer": {"name": "AdamW", "lr": 3e-4, "betas": [0.9, 0.999]},
    "training": {"epochs": 20, "clip_norm": None},
}
DEFAULT = {**VALUES, "data": {"name": "digits", "batch_size": 32}, "optimizer": {"name": "Adam", "lr": 1e-3}}


class TestRecipe:
    @pytest.mark.parametrize("size", [(30, 24), (60, 24)])
    async def test_keys_and_values_with_what_differs_marked(self, size):
        class One(App):
            def compose(self) -> ComposeResult:
                yield RecipePane()

        app = One()
        async with app.run_test(size=size) as pilot:
            app.query_one(RecipePane).show_recipe(VALUES, DEFAULT)
            await pilot.pause()
            lines = {line.strip("│ •").split()[0]: line for line in screen_lines(app)[1:-1] if line.strip("│ •")}
            assert "CrossEntropyLoss" in lines["loss"]
            assert "0.9, 0.999" in lines["betas"]
            assert "3.0e-4" in lines["lr"]
            assert {key for key, line in lines.items() if "•" in line} == {"batch_size", "optimizer"}


class Machine:
    """An NVML with two GPUs; on the second, in which the run is, this process, a stranger's and one that hides its memory."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=10 * GIB)]
        self.processes += [
            SimpleNamespace(pid=2**30, usedGpuMemory=3 * GIB),
            SimpleNamespace(pid=2**30 + 1, usedGpuMemory=None),
        ]

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda i: i,
            "nvmlDeviceGetIndex": lambda handle: handle,
            "nvmlDeviceGetName": lambda handle: f"GPU {handle}",
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=10 + handle),
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=(13 if handle else 2) * GIB, total=80 * GIB),
            "nvmlDeviceGetTemperature": lambda handle, kind: 40 + handle,
            "nvmlDeviceGetPowerUsage": self.power,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: self.processes if handle else [],
        }
        return answers[name]

    def power(self, handle: int) -> int:
        if handle == 0:
            raise self.NVMLError
        return 300_000


def test_each_gpu_and_whose_memory_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Machine())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    reading = DeviceReader("cuda:1").read()
    assert (reading.gpu_own, reading.gpu_others) == (10 * GIB, (2, 3 * GIB))
    text = "\n".join("".join(piece for piece, _ in row) for row in device_rows(reading, 34))
    for said in (
        "GPU 1",
        "11%",
        "13.0 of 80.0 GiB",
        "41 °C  300 W",
        "own   10 GiB, 2 others 3.0 GiB",
        "gpu 0 10%  2 of 80 GiB  40 °C",
    ):
        assert said in text, text
    assert all(length(row) <= 34 for row in device_rows(reading, 34))


async def test_a_long_value_ends_before_the_scrollbar():
    class One(App[None]):
        def compose(self) -> ComposeResult:
            yield RecipePane()

    app = One()
    async with app.run_test(size=(30, 6)) as pilot:
        app.query_one(RecipePane).show_recipe({"model": {"name": "mlp", "hidden": [1024] * 5, **dict.fromkeys("abcdef", 1)}})
        await pilot.pause()
        assert "1024… " in line_with(app, "hidden")


def test_a_run_without_a_recipe_says_so():
    assert recipe_rows({}, {}, 40) == [[(" this run has no recipe", "faint")]]

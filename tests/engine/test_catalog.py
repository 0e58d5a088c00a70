"""Fields from signatures and docstrings, their texts in a form, and own code."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine import catalog
from engine.catalog import REQUIRED, Field, fields_of, resolve
from engine.errors import RecipeError


def by_key(fields: tuple[Field, ...]) -> dict[str, Field]:
    return {field.key: field for field in fields}


class Sample:
    """A class to be read.

    More about it.

    Args:
        width (int): how :attr:`wide` it is. And more.
        rate (float, optional): with a default
            over two lines (default: 0.5).
        hidden: widths,
            of layers
        mode (str): one of ``a`` or ``b``. Default: ``"a"``
    """

    def __init__(
        self,
        width: int,
        rate: float | torch.Tensor = 0.5,
        hidden: tuple[int, ...] = (64, 32),
        mode: "Literal['a', 'b']" = "a",  # noqa: UP037
        pair: tuple[float, float] = (1, 2),
        limit: int | None = None,
        weight: torch.Tensor | None = None,
        hook: Callable[[int], int] | None = None,
        path: Path | None = None,
        guessed=3.5,
        listed=(1, 2.5),
        partly: tuple[float | None, float] = (None, 0.1),
        *,
        flag: bool = False,
    ) -> None: ...


def test_fields_follow_the_signature() -> None:
    fields = by_key(fields_of(Sample, exclude=("flag",)))
    assert list(fields) == [
        "width", "rate", "hidden", "mode", "pair", "limit", "weight", "path", "guessed", "listed", "partly",
    ]  # fmt: skip
    assert fields["width"].kind == "integer" and fields["width"].default is REQUIRED
    assert fields["rate"].kind == "number" and fields["rate"].default == 0.5
    assert (fields["hidden"].kind, fields["hidden"].item, fields["hidden"].default) == ("list", "integer", [64, 32])
    assert fields["hidden"].length is None
    assert fields["mode"].choices == ("a", "b")
    assert (fields["pair"].length, fields["pair"].default) == (2, [1.0, 2.0])
    assert fields["limit"].optional and fields["limit"].kind == "integer"
    assert (fields["weight"].kind, fields["weight"].item, fields["weight"].make) == ("list", "number", "tensor")
    assert (fields["path"].kind, fields["path"].make) == ("text", "path")
    assert fields["guessed"].kind == "number"
    assert (fields["listed"].kind, fields["listed"].item) == ("list", "number")
    assert fields["partly"].optional and fields["partly"].derived == "(None, 0.1)"


def test_help_is_one_plain_sentence() -> None:
    fields = by_key(fields_of(Sample))
    assert fields["width"].help == "how wide it is"
    assert fields["rate"].help == "with a default over two lines"
    assert fields["hidden"].help == "widths, of layers"
    assert fields["mode"].help == "one of a or b"


def test_numpy_style_help() -> None:
    def numpy_style(width, depth=2):
        """Short.

        Parameters
        ----------
        width : int
            How wide.
        depth : int, optional
            How deep. Not used.

        Returns
        -------
        nothing
        """

    fields = by_key(fields_of(numpy_style))
    assert (fields["width"].help, fields["depth"].help) == ("How wide", "How deep")
    assert fields["width"].default is REQUIRED and fields["width"].kind == "any"


def test_torch_classes() -> None:
    adam = by_key(catalog.find("optimizer", "Adam").fields)
    assert adam["lr"].default == 1e-3 and adam["lr"].help == "learning rate"
    assert adam["betas"].default == [0.9, 0.999] and adam["betas"].length == 2
    assert "params" not in adam and "capturable" not in adam
    assert by_key(catalog.find("optimizer", "Adafactor").fields)["eps"].optional
    cross = by_key(catalog.find("loss", "CrossEntropyLoss").fields)
    assert set(cross) == {"weight", "ignore_index", "label_smoothing"}
    cycle = catalog.find("scheduler", "OneCycleLR")
    assert cycle.unit == "step" and cycle.derived == {"total_steps": "total_steps", "max_lr": "lr"}
    assert by_key(cycle.fields)["total_steps"].derived == "the length of the run"
    assert not {"optimizer", "last_epoch", "epochs", "steps_per_epoch"} & set(by_key(cycle.fields))
    assert by_key(catalog.find("scheduler", "StepLR").fields)["step_size"].default is REQUIRED
    assert catalog.find("scheduler", "CosineAnnealingLR").derived == {"T_max": "epochs"}
    assert catalog.find("scheduler", "ReduceLROnPlateau").unit == "plateau"


def test_build_makes_what_torch_wants() -> None:
    loss = catalog.find("loss", "CrossEntropyLoss").build({"weight": [1.0, 2.0]})
    assert torch.equal(loss.weight, torch.tensor([1.0, 2.0])) and loss.weight.dtype == torch.float32
    optimizer = catalog.find("optimizer", "Adam").build({"betas": [0.8, 0.9]}, [nn.Parameter(torch.ones(1))])
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    plain = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    assert {**optimizer.defaults, "betas": plain.defaults["betas"]} == plain.defaults


# Texts of a form.


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        (Field(key="x", kind="integer"), " 12 ", 12),
        (Field(key="x", kind="integer"), "1e3", 1000),
        (Field(key="x", kind="integer"), "1.5", 1.5),
        (Field(key="x", kind="integer"), "many", "many"),
        (Field(key="x", kind="number"), "3", 3.0),
        (Field(key="x", kind="number"), "1e-3", 1e-3),
        (Field(key="x", kind="boolean"), "True", True),
        (Field(key="x", kind="boolean"), "maybe", "maybe"),
        (Field(key="x", kind="text"), "", ""),
        (Field(key="x", kind="text", optional=True), "", None),
        (Field(key="x", kind="list", item="integer"), "64, 32", [64, 32]),
        (Field(key="x", kind="list", item="integer"), "[64, 32]", [64, 32]),
        (Field(key="x", kind="list", item="number"), "1, 2.5", [1.0, 2.5]),
        (Field(key="x", kind="list", item="number"), "[1, 2.5]", [1.0, 2.5]),
        (Field(key="x", kind="list", item="integer"), "", []),
        (Field(key="x", kind="list", item="integer", optional=True), "", None),
        (Field(key="x", kind="list", item="text"), "a, b", ["a", "b"]),
        (Field(key="x", kind="any"), "[1, 'a']", [1, "a"]),
        (Field(key="x", kind="any"), "word", "word"),
        (Field(key="x", kind="list", item="table"), '{ a = "b.*", c = 1 }, {a = 2}', [{"a": "b.*", "c": 1}, {"a": 2}]),
        (Field(key="x", kind="list", item="table"), "[{a = 2}]", [{"a": 2}]),
        (Field(key="x", kind="list", item="table"), "a = 2", "[a = 2]"),
        (Field(key="x", kind="list", item="table", optional=True), "", None),
        (Field(key="x", kind="list", item="number", words=("balanced",)), "balanced", "balanced"),
        (Field(key="x", kind="list", item="number", words=("balanced",)), "1, 2", [1.0, 2.0]),
    ],
)
def test_reading(field: Field, text: str, value: object) -> None:
    read = field.read(text)
    assert read == value and type(read) is type(value)


texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f", exclude_categories=["Cc"]))
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.one_of(
        st.tuples(st.just(Field(key="x", kind="integer")), st.integers(-(2**63), 2**63 - 1)),
        st.tuples(st.just(Field(key="x", kind="number")), numbers),
        st.tuples(st.just(Field(key="x", kind="boolean")), st.booleans()),
        st.tuples(st.just(Field(key="x", kind="text")), texts.map(str.strip)),
        st.tuples(st.just(Field(key="x", kind="list", item="integer")), st.lists(st.integers(-(2**63), 2**63 - 1))),
        st.tuples(st.just(Field(key="x", kind="list", item="number")), st.lists(numbers)),
        st.tuples(st.just(Field(key="x", kind="list", item="text")), st.lists(texts)),
        st.tuples(st.just(Field(key="x", kind="list", item="boolean")), st.lists(st.booleans())),
        st.tuples(
            st.just(Field(key="x", kind="list", item="table")),
            st.lists(st.dictionaries(texts, st.one_of(texts, numbers, st.booleans(), st.lists(numbers)))),
        ),
        st.tuples(st.just(Field(key="x", kind="any")), st.one_of(st.integers(-9, 9), st.booleans(), texts, st.lists(texts))),
    )
)
def test_what_is_shown_reads_back(case: tuple[Field, Any]) -> None:
    field, value = case
    assert field.read(field.show(value)) == value
    assert field.problem("model", value) is None


@given(st.sampled_from(["integer", "number", "boolean", "text", "list", "any"]), st.text())
def test_reading_never_raises(kind: Any, text: str) -> None:
    field = Field(key="x", kind=kind, optional=True)
    field.problem("model", field.read(text))


def test_small_numbers_are_shown_short() -> None:
    assert Field(key="lr", kind="number").show(3e-5) == "3e-5"
    assert Field(key="betas", kind="list", item="number").show((0.9, 0.999)) == "0.9, 0.999"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        (Field(key="lr", kind="number"), "abc", "optimizer.lr is 'abc'; it must be a number"),
        (Field(key="lr", kind="number"), True, "optimizer.lr is true; it must be a number"),
        (Field(key="lr", kind="number"), math.nan, "optimizer.lr is nan; it must be a finite number"),
        (Field(key="lr", kind="number", minimum=0.0), -1, "optimizer.lr is -1.0; it must be a number of at least 0"),
        (Field(key="n", kind="integer"), True, "optimizer.n is true; it must be an integer"),
        (Field(key="n", kind="integer"), 1.5, "optimizer.n is 1.5; it must be an integer"),
        (Field(key="n", kind="integer"), None, "optimizer.n is missing; it must be an integer"),
        (Field(key="n", kind="integer", minimum=1, maximum=9), 10, "optimizer.n is 10; it must be an integer from 1 to 9"),
        (Field(key="f", kind="boolean"), 1, "optimizer.f is 1; it must be true or false"),
        (Field(key="g", kind="list", item="table"), [1], "optimizer.g is [1]; it must be a list of tables"),
        (
            Field(key="w", kind="list", item="number", words=("none", "balanced")),
            "ballanced",
            "optimizer.w is 'ballanced'; it must be none, balanced or a list of numbers; the nearest is 'balanced'",
        ),
        (Field(key="l", kind="list", item="integer"), 64, "optimizer.l is 64; it must be a list of integers"),
        (Field(key="l", kind="list", item="integer"), [1, "a"], "optimizer.l is [1, 'a']; it must be a list of integers"),
        (Field(key="l", kind="list", item="number", length=2), [0.9], "optimizer.l is [0.9]; it must be a list of 2 numbers"),
        (
            Field(key="m", kind="text", choices=("float32", "tf32")),
            "fp32",
            "optimizer.m is 'fp32'; it must be one of float32, tf32; the nearest is 'float32'",
        ),
    ],
)
def test_sentences(field: Field, value: object, sentence: str) -> None:
    problem = field.problem("optimizer", value)
    assert problem is not None
    assert (problem.field, problem.message) == (f"optimizer.{field.key}", sentence)


def test_whole_numbers_are_numbers() -> None:
    assert Field(key="n", kind="number").clean(1) == 1.0
    assert Field(key="n", kind="integer").clean(1e3) == 1000
    assert isinstance(Field(key="n", kind="integer").clean(1e3), int)
    assert Field(key="n", kind="number").problem("", 10**400) is not None


# Own code.

NETS = '''
"""A person's models."""
from helper import WIDTH
from torch import nn


class Net(nn.Module):
    """One layer.

    Args:
        width: how wide
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = WIDTH, path: str = "x") -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], output_size)


def loss(output, target, power: float = 2.0):
    """Powers of the error."""
    return (output - target).abs().pow(power).mean()


def load(folder: str, batch_size: int, **more):
    return folder, batch_size, more


finished = Net((1,), 1)
NUMBER = 3
'''


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "nets.py").write_text(NETS)
    (tmp_path / "code" / "helper.py").write_text("WIDTH = 7\n")
    yield tmp_path
    sys.modules.pop("helper", None)


def test_own_model(own_code: Path) -> None:
    path = list(sys.path)
    entry = catalog.find("model", "code/nets.py:Net")
    assert [field.key for field in entry.fields] == ["width", "path"]
    assert by_key(entry.fields)["width"].default == 7 and by_key(entry.fields)["width"].help == "how wide"
    assert entry.wants == ("input_shape", "output_size")
    assert entry.build({"width": 3}, input_shape=(5,), output_size=2, unasked=1).layer.weight.shape == (2, 5)
    assert sys.path == path
    assert resolve("code/nets.py:Net") is entry.target  # loaded once


def test_own_code_is_loaded_again_when_it_changed(own_code: Path) -> None:
    assert resolve("code/nets.py:loss")(torch.tensor(3.0), torch.tensor(1.0)) == 4
    file = own_code / "code" / "nets.py"
    file.write_text(file.read_text().replace("power: float = 2.0", "power: float = 3.0"))  # the same size, the same second
    assert resolve("code/nets.py:loss")(torch.tensor(3.0), torch.tensor(1.0)) == 8


def test_own_loss_function_is_not_called_to_build_it(own_code: Path) -> None:
    entry = catalog.find("loss", "code/nets.py:loss")
    assert [field.key for field in entry.fields] == ["power"] and entry.tasks == ()
    assert entry.build({"power": 1})(torch.tensor(3.0), torch.tensor(1.0)) == 2
    package = catalog.find("loss", "torch.nn.functional:cross_entropy").build({"label_smoothing": 0.1})
    output, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert package(output, target) == nn.CrossEntropyLoss(label_smoothing=0.1)(output, target)


def test_own_data_function(own_code: Path) -> None:
    entry = catalog.find("data", "code/nets.py:load")
    assert [field.key for field in entry.fields] == ["folder"]
    assert entry.wants == ("batch_size",) and entry.open
    built = entry.build({"folder": "a", "other": 1}, batch_size=8, shuffle=True)
    assert built == ("a", 8, {"other": 1})


def test_own_optimizer_and_scheduler() -> None:
    optimizer = catalog.find("optimizer", "torch.optim:SGD").build({"lr": 0.5}, [nn.Parameter(torch.ones(1))])
    assert optimizer.param_groups[0]["lr"] == 0.5
    entry = catalog.find("scheduler", "torch.optim.swa_utils:SWALR")
    assert entry.unit == "epoch"
    assert entry.build({"swa_lr": 0.1, "unit": "epoch"}, optimizer).get_last_lr() == [0.5]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("code/net.py:Net", "there is no file"),
        ("code/net.py:Net", "the nearest is 'nets.py'"),
        ("code/nets.py:Nett", "has no 'Nett'; the nearest is 'Net'"),
        ("code/nets.py:NUMBER", "NUMBER is a int, and it must be a class or a function"),
        ("code/nets.py:finished", "a finished module"),
        ("code/nets.py", "own code is written"),
        ("no_such_package.models:Net", "there is no module 'no_such_package'"),
        ("torch.nn:Lineer", "the nearest is 'Linear'"),
        ("mpl", "which is no model of the catalog; the nearest is 'mlp'"),
        ("zzzz", "linear, mlp, "),
    ],
)
def test_names_that_lead_nowhere(own_code: Path, name: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        catalog.find("model", name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.problems[0].field == "model.name"
    assert caught.value.problems[0].message.startswith(f"model.name is {name!r}")


def test_errors_of_own_code_come_through(own_code: Path) -> None:
    (own_code / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        resolve("broken.py:Net")
    with pytest.raises(ModuleNotFoundError):
        catalog.problems({"model": {"name": "broken.py:Net"}})
    assert catalog.sections({"model": {"name": "broken.py:Net"}})  # a form stays up
    (own_code / "package").mkdir()
    (own_code / "package" / "__init__.py").write_text("raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        resolve("package:Net")


def test_modules_of_the_working_directory_are_found(own_code: Path) -> None:
    (own_code / "my_own_models.py").write_text("def net(): return 1\n")
    assert resolve("my_own_models:net")() == 1

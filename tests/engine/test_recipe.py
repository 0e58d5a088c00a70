"""A recipe as file, values and object: the same in every form, and complete."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import catalog
from engine.catalog import REQUIRED, Field
from engine.errors import RecipeError
from engine.recipe import Component, Recipe, Training
from engine.recipe_text import apply_settings, parse_setting

FULL = """
name = "digits-mlp"
seed = 0
[data]
name = "digits"
validation = 0.2
batch_size = 32
[model]
name = "mlp"
hidden = [128]
[loss]
name = "CrossEntropyLoss"
[optimizer]
name = "Adam"
lr = 1e-3
[scheduler]
name = "OneCycleLR"
max_lr = 1e-2
[training]
epochs = 20
device = "auto"
precision = "float32"
execution = "auto"
[checkpoint]
every = 1
keep = 3
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(FULL)
    recipe = Recipe.load(tmp_path / "r.toml")
    assert recipe.model == Component("mlp", {"hidden": [128]})
    assert recipe.data == Component("digits")
    assert recipe.loading.batch_size == 32
    assert recipe.scheduler == Component("OneCycleLR", {"max_lr": 0.01})
    assert recipe.training == Training()


def test_the_complete_form_holds_every_default_in_order() -> None:
    values = Recipe().to_dict()
    assert list(values) == ["name", "seed", "data", "model", "loss", "optimizer", "training", "checkpoint", "track"]
    assert list(values["optimizer"])[:3] == ["name", "lr", "betas"]
    assert values["optimizer"]["betas"] == [0.9, 0.999]
    assert values["data"]["batch_size"] == 32 and values["data"]["validation"] == 0.2
    assert "patience" not in values["training"] and "foreach" not in values["optimizer"]


def test_the_complete_form_is_accepted_unchanged(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(tomllib.loads(FULL))
    for one in (Recipe(), recipe):
        again = Recipe.from_dict(one.to_dict())
        assert again.to_dict() == one.to_dict()
        assert tomllib.loads(one.to_toml()) == one.to_dict()
        one.save(tmp_path / "r.toml")
        assert Recipe.load(tmp_path / "r.toml").to_toml() == one.to_toml()


def test_lists_stand_on_one_line() -> None:
    assert "betas = [0.9, 0.999]\n" in Recipe().to_toml()


def test_a_recipe_may_say_only_what_differs() -> None:
    recipe = Recipe.from_dict({"optimizer": {"lr": 0.1}, "training": {"epochs": 3}})
    assert recipe == Recipe(optimizer=Component("Adam", {"lr": 0.1}), training=Training(epochs=3))


def test_a_file_without_a_name_is_called_like_the_file(tmp_path: Path) -> None:
    (tmp_path / "my first.toml").write_text("seed = 1")
    assert Recipe.load(tmp_path / "my first.toml").name == "my-first"


def value_for(field: Field) -> st.SearchStrategy[Any]:
    """Any valid value of a field that has no rule beyond its kind and limits."""
    if field.choices and field.kind != "list":
        return st.sampled_from(field.choices)
    low = 0 if field.minimum is None else field.minimum
    high = low + 100 if field.maximum is None else min(field.maximum, 2**63 - 1)
    match field.kind:
        case "integer":
            return st.integers(int(low), int(high))
        case "number":
            return st.floats(low, high, allow_nan=False) | st.integers(int(low), int(high))
        case "boolean":
            return st.booleans()
        case "text" if not field.pattern:
            return st.text("abc/_.", min_size=1)
        case "list" if field.choices:
            return st.lists(st.sampled_from(field.choices), max_size=3)
        case "list":
            return st.lists(st.text("abc/_.", min_size=1), max_size=3)
    return st.just(field.default)


def variants() -> st.SearchStrategy[dict[str, Any]]:
    """The plan's own sections in any valid state, over a few components."""
    sections = {section.key: section for section in catalog.sections(Recipe().to_dict(complete=False))}
    plans = {
        key: st.fixed_dictionaries({}, optional={field.key: value_for(field) for field in sections[key].fields})
        for key in ("training", "checkpoint", "track")
    }
    loading = {field.key: value_for(field) for field in sections["data"].fields}
    loading["reconstruct"] = st.just(False)  # the data are then for other models
    model = st.fixed_dictionaries(
        {"name": st.just("mlp")}, optional={"hidden": st.lists(st.integers(1, 9)), "dropout": st.just(0)}
    )
    optimizer = st.fixed_dictionaries(
        {"name": st.sampled_from(["SGD", "Adam", "RMSprop"])},
        optional={"lr": st.floats(0, 10), "weight_decay": st.floats(0, 1)},
    )
    scheduler = st.sampled_from(
        [
            {"name": "StepLR", "step_size": 3},
            {"name": "CosineAnnealingLR", "unit": "step"},
            {"name": "MultiStepLR", "milestones": [1, 5]},
        ]
    )
    return st.fixed_dictionaries(
        {"data": st.fixed_dictionaries({"name": st.just("digits")}, optional=loading)},
        optional={
            "name": st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True),
            "seed": st.integers(0, 2**63 - 1),
            "model": model,
            "optimizer": optimizer,
            "scheduler": scheduler,
            **plans,
        },
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_valid_variants_survive_the_round_trip(data: st.DataObject) -> None:
    values = data.draw(variants())
    recipe = Recipe.from_dict(values)
    complete = recipe.to_dict()
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())).to_dict() == complete
    for section, given_values in values.items():
        if isinstance(given_values, dict):
            assert {key: complete[section][key] for key in given_values} == given_values
        else:
            assert complete[section] == given_values


def test_required_arguments_come_in_the_constructors_order() -> None:
    recipe = Recipe(scheduler=Component("StepLR", {"gamma": 0.5, "step_size": 2}))
    arguments = {"name": "StepLR", "step_size": 2, "gamma": 0.5, "unit": "epoch", "warmup": 0, "warmup_start": 0.01}
    assert list(recipe.to_dict()["scheduler"].items()) == list(arguments.items())
    field = catalog.find("scheduler", "StepLR").fields[0]
    assert field.default is REQUIRED
    assert "step_size" not in Recipe(scheduler=Component("StepLR")).to_dict()["scheduler"]


def test_every_mistake_is_in_one_error() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"name": "a/b", "optimizer": {"name": "Adm"}, "training": {"epochs": True}})
    assert [problem.field for problem in caught.value.problems] == ["name", "optimizer.name", "training.epochs"]
    assert "the nearest is 'Adam'" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a/b", ".hidden", "ä", "..", "a\n", "x" * 101])
def test_a_name_must_do_for_a_directory(name: str) -> None:
    with pytest.raises(RecipeError, match="letters from a to z, digits"):
        Recipe.from_dict({"name": name})


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_devices(device: str) -> None:
    assert Recipe.from_dict({"training": {"device": device}}).training.device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda1", ""])
def test_no_devices(device: str) -> None:
    with pytest.raises(RecipeError, match=r"training\.device"):
        Recipe.from_dict({"training": {"device": device}})


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('name = "x"\nseed 3\n')
    (tmp_path / "mark.toml").write_bytes(b'\xef\xbb\xbfname = "windows"\n')
    assert Recipe.load(tmp_path / "mark.toml").name == "windows"
    with pytest.raises(RecipeError, match=r"bad.toml is no TOML file: .*line 2, column 6"):
        Recipe.load(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match="there is no file"):
        Recipe.load(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="is a directory, not a recipe's file"):
        Recipe.load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="UTF-8"):
        Recipe.load(tmp_path / "binary.toml")


def test_a_recipe_made_in_python_is_checked() -> None:
    Recipe(optimizer=Component("Adam", {"betas": (0.8, 0.9)})).check()
    with pytest.raises(RecipeError, match=r"training\.epochs is 0"):
        Recipe(training=Training(epochs=0)).check()


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        ("iris", "linear", "iris-linear"),
        ("digits", None, "digits-mlp"),
        ("code/my set.py:load", "code/nets.py:Net", "my-set-Net"),
        ("package.sets.flowers:load", "package.nets:Net", "flowers-Net"),
        (".hidden.py:load", "linear", "hidden-linear"),
        ("x" * 99 + ".py:load", "linear", "x" * 99 + "-"),
    ],
)
def test_a_recipe_without_a_name_is_called_after_data_and_model(data: str, model: str | None, name: str) -> None:
    from engine.catalog.check import with_defaults

    values = {"data": {"name": data}, **({"model": {"name": model}} if model else {})}
    assert with_defaults(values)["name"] == name
    assert with_defaults({**values, "name": "own"})["name"] == "own"


@pytest.mark.parametrize(
    ("data", "model", "loss"),
    [
        ({"name": "digits"}, "mlp", "CrossEntropyLoss"),
        ({"name": "diabetes"}, "mlp", "MSELoss"),
        ({"name": "digits", "reconstruct": True}, "autoencoder", "MSELoss"),
        ({"name": "csv", "path": "x.csv", "target": "y"}, "mlp", "auto"),
        ({"name": "csv", "path": "x.csv", "target": "y", "task": "regression"}, "mlp", "MSELoss"),
    ],
)
def test_model_and_loss_follow_the_data(data: dict[str, Any], model: str, loss: str) -> None:
    recipe = Recipe.from_dict({"data": data})
    assert (recipe.model.name, recipe.loss.name) == (model, loss)
    assert Recipe.from_dict(recipe.to_dict()).to_dict() == recipe.to_dict()


def test_tables_inside_a_section_survive_the_file(tmp_path: Path) -> None:
    groups = [{"pattern": "head.*", "lr": 1e-4, "betas": [0.9, 0.99]}, {"pattern": "*.bias", "weight_decay": 0}]
    chain = [{"name": "LinearLR", "length": 5}, {"name": "CosineAnnealingLR", "eta_min": 0.001}]
    recipe = Recipe.from_dict(
        {
            "optimizer": {"name": "AdamW", "no_decay": True, "groups": groups},
            "scheduler": {"name": "chain", "chain": chain, "unit": "step"},
            "loss": {"name": "CrossEntropyLoss", "weight": "balanced"},
        }
    )
    recipe.save(tmp_path / "r.toml")
    assert 'groups = [{pattern = "head.*", lr = 0.0001, ' in recipe.to_toml()
    again = Recipe.load(tmp_path / "r.toml")
    assert again.optimizer.arguments["groups"] == groups and again.optimizer.arguments["no_decay"]
    assert again.scheduler is not None and again.scheduler.arguments["chain"] == chain
    assert again.loss.arguments["weight"] == "balanced"
    assert again.to_toml() == recipe.to_toml()
    text = '[optimizer]\nname = "Adam"\n[[optimizer.groups]]\npattern = "*"\nlr = 1\n'
    assert Recipe.from_dict(tomllib.loads(text)).optimizer.arguments["groups"] == [{"pattern": "*", "lr": 1}]
    setting = apply_settings({}, ['optimizer.groups=[{pattern="head.*", lr=1e-4}]', "loss.weight=balanced"])
    assert setting["optimizer"]["groups"] == [{"pattern": "head.*", "lr": 1e-4}]
    assert setting["loss"]["weight"] == "balanced"


def test_replace() -> None:
    recipe = Recipe(
        optimizer=Component("Adam", {"lr": 0.1, "betas": [0.8, 0.9]}), scheduler=Component("StepLR", {"step_size": 1})
    )
    assert recipe.replace(**{"optimizer.lr": 1}).optimizer.arguments == {"lr": 1.0, "betas": [0.8, 0.9]}
    assert recipe.replace(**{"optimizer.name": "SGD"}).optimizer == Component("SGD", {"lr": 0.1})
    assert recipe.replace(scheduler=None).scheduler is None
    assert recipe.replace(**{"training.patience": 3}).replace(**{"training.patience": None}) == recipe
    assert recipe.replace(**{"data.name": "iris", "data.batch_size": 8}).loading.batch_size == 8
    with pytest.raises(RecipeError, match="the nearest is 'lr'"):
        recipe.replace(**{"optimizer.lrr": 1})
    assert recipe.optimizer.arguments["lr"] == 0.1


@pytest.mark.parametrize(
    ("setting", "parsed"),
    [
        ("optimizer.lr=1e-3", ("optimizer.lr", 1e-3)),
        ("model.hidden = [64, 32]", ("model.hidden", [64, 32])),
        ("optimizer.name=SGD", ("optimizer.name", "SGD")),
        ("data.path=a=b.csv", ("data.path", "a=b.csv")),
        ("data.shuffle=false", ("data.shuffle", False)),
        ("name='x'", ("name", "x")),
        ("name=", ("name", "")),
    ],
)
def test_parsing_a_setting(setting: str, parsed: tuple[str, object]) -> None:
    assert parse_setting(setting) == parsed


@pytest.mark.parametrize("setting", ["optimizer.lr", "=3", ""])
def test_what_is_no_setting(setting: str) -> None:
    with pytest.raises(RecipeError, match="write key=value"):
        parse_setting(setting)


def test_applying_settings() -> None:
    values = {"optimizer": {"name": "Adam", "lr": 0.1, "betas": [0.8, 0.9]}, "scheduler": {"name": "StepLR"}}
    changed = apply_settings(values, ["optimizer.name=SGD", "optimizer.momentum=0.9", "scheduler=none", "name=7"])
    assert changed == {"optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9}, "name": "7"}
    assert values["optimizer"]["name"] == "Adam"
    assert apply_settings({}, ["model.hidden=64,32"]) == {"model": {"hidden": [64, 32]}}
    assert apply_settings({"training": {"patience": 3}}, ["training.patience=none"]) == {"training": {}}
    assert apply_settings({}, ["scheduler=CosineAnnealingLR"]) == {"scheduler": {"name": "CosineAnnealingLR"}}
    assert apply_settings({}, ["data.name=csv", "data.path=1.csv"]) == {"data": {"name": "csv", "path": "1.csv"}}


def test_a_misspelt_setting_is_named_by_the_check() -> None:
    with pytest.raises(RecipeError, match=r"optimizer\.lrr is no field of Adam; the nearest is 'lr'"):
        Recipe.from_dict(apply_settings({}, ["optimizer.lrr=1"]))
    with pytest.raises(RecipeError, match="optimiser is no part of a recipe; the nearest is 'optimizer'"):
        Recipe.from_dict(apply_settings({}, ["optimiser.lr=1"]))


def test_a_number_too_long_to_be_shown_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text("seed = 0x" + "f" * 20_000)
    with pytest.raises(RecipeError, match=r"long\.toml is no TOML file: Exceeds the limit"):
        Recipe.load(path)

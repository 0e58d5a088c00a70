"""The form without a screen: values in, values out."""

from __future__ import annotations

import pytest

from tests.tui.conftest import ScriptedEngine
from tui.form.model import FormModel


@pytest.fixture
def model(engine: ScriptedEngine) -> FormModel:
    model = FormModel({"name": "digits-mlp", "optimizer": {"name": "Adam", "lr": 0.01}}, engine.sections)
    model.light = False
    model.refresh()
    return model


def field(model: FormModel, section: str, key: str):
    found = model.group(section).find(key)
    assert found is not None
    return found


def test_the_names_of_the_default_recipe_stand_where_none_is_given(model: FormModel):
    assert (model.name("data"), model.name("model"), model.name("loss")) == ("digits", "mlp", "CrossEntropyLoss")
    assert model.name("scheduler") is None


def test_only_what_differs_from_its_default_is_kept(model: FormModel):
    epochs = field(model, "training", "epochs")
    assert model.write("training", epochs, "7") == "" and model.values["training"] == {"epochs": 7}
    assert model.differs("training", epochs)
    assert model.write("training", epochs, "20") == "" and model.values["training"] == {}
    model.write("training", epochs, "7")
    assert model.write("training", epochs, "  ") == "", "nothing typed means the default"
    assert not model.differs("training", epochs)


def test_numbers_may_have_exponents(model: FormModel):
    model.write("optimizer", field(model, "optimizer", "lr"), "3e-4")
    assert model.values["optimizer"]["lr"] == 3e-4


def test_what_is_no_value_stays_as_typed_and_is_named(model: FormModel):
    lr = field(model, "optimizer", "lr")
    sentence = model.write("optimizer", lr, "fast")
    assert sentence.startswith("optimizer.lr is 'fast'") and model.text("optimizer", lr) == "fast"
    assert model.problems() == {"optimizer.lr": sentence}
    assert "at least 0" in model.write("optimizer", lr, "-1")


def test_a_required_field_is_missing_until_it_is_given(model: FormModel):
    model.pick("data", "csv")
    assert set(model.problems()) == {"data.path", "data.target"}
    model.write("data", field(model, "data", "path"), "a.csv")
    assert set(model.problems()) == {"data.target"}


def test_another_name_keeps_changed_values_that_it_has_too(model: FormModel):
    model.write("optimizer", field(model, "optimizer", "betas"), "0.8, 0.9")
    model.pick("optimizer", "SGD")
    assert model.values["optimizer"] == {"name": "SGD", "lr": 0.01}
    assert [item.key for item in model.group("optimizer").fields] == ["lr", "momentum"]


def test_another_name_takes_its_own_defaults_for_what_was_not_changed(model: FormModel):
    model.write("optimizer", field(model, "optimizer", "lr"), "0.001")
    model.pick("optimizer", "SGD")
    assert model.values["optimizer"] == {"name": "SGD"}


def test_a_field_of_the_same_name_and_another_kind_is_not_kept(model: FormModel):
    model.pick("optimizer", "Rprop")
    assert model.values["optimizer"] == {"name": "Rprop"}


def test_another_source_keeps_how_samples_are_loaded(model: FormModel):
    model.write("data", field(model, "data", "batch_size"), "64")
    model.pick("data", "csv")
    assert model.values["data"] == {"name": "csv", "batch_size": 64}


def test_the_scheduler_can_come_and_go(model: FormModel):
    model.pick("scheduler", "StepLR")
    assert model.values["scheduler"] == {"name": "StepLR"} and set(model.problems()) == {"scheduler.step_size"}
    model.pick("scheduler", None)
    assert "scheduler" not in model.values and not model.problems()


def test_what_differs_is_counted(model: FormModel):
    assert model.changes() == 1  # the learning rate
    model.pick("optimizer", "SGD")
    assert model.changes() == 2


def test_a_misspelt_setting_of_a_file_gets_a_row_of_its_own(engine: ScriptedEngine):
    model = FormModel({"optimizer": {"name": "Adam", "lrr": 1}}, engine.sections)
    model.light = False
    model.refresh()
    unknown = field(model, "optimizer", "lrr")
    model.write("optimizer", unknown, "")
    assert model.values["optimizer"] == {"name": "Adam"}


def test_values_are_there_before_the_catalog_is(engine: ScriptedEngine):
    model = FormModel({"optimizer": {"name": "SGD", "lr": 0.5}}, engine.sections)
    assert model.group("optimizer").names == ("SGD",) and model.values["optimizer"]["lr"] == 0.5
    model.light = False
    model.refresh()
    assert model.text("optimizer", field(model, "optimizer", "lr")) == "0.5"


def test_true_is_not_one(model: FormModel):
    amsgrad = field(model, "optimizer", "amsgrad")
    assert model.set("optimizer", amsgrad, 0) != "", "a number is no answer to yes or no"
    assert model.set("optimizer", amsgrad, True) == "" and model.differs("optimizer", amsgrad)

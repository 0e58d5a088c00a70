"""The guide's callbacks for other trainers, in those trainers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import History, Run
from engine.run import load_history

GUIDE = (Path(__file__).parents[2] / ".github" / "GUIDE-PYTHON.md").read_text(encoding="utf-8")


def watched(library: str, run: Run) -> Any:
    """The callback as the guide has it."""
    (code,) = re.findall(rf"```python\n(# {library}\n.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "GUIDE-PYTHON.md", "exec"), names)
    return names["Watched"](run)


def ended(run: Run) -> History:
    history = load_history(run)
    assert history.ended is not None
    return history


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    losses: list[float] = []

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
            losses.append(loss.item())
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randn(32, 1))
    loaders = [torch.utils.data.DataLoader(data, batch_size=8) for _ in range(2)]
    with Run.create(tmp_path / "runs", "theirs", epochs=3) as run:
        trainer = lightning.Trainer(
            max_epochs=3, callbacks=[watched("lightning", run)], logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(Model(), *loaders)
    history = ended(run)
    assert [mean for _, mean, _, _ in history.series["train/loss"]] == pytest.approx(losses)
    assert [row.epoch for row in history.epochs] == [1, 2, 3] and all("val/loss" in row.metrics for row in history.epochs)
    assert history.epochs[0].metrics["train/loss"] == pytest.approx(sum(losses[:4]) / 4)


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            output = self.net(x)
            return {"loss": nn.functional.mse_loss(output, labels), "logits": output}

    data = [{"x": torch.randn(4), "labels": torch.randn(1)} for _ in range(32)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=8, logging_steps=1, eval_strategy="epoch",
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with Run.create(tmp_path / "runs", "theirs", epochs=2) as run:
        trainer = transformers.Trainer(
            Model(), arguments, train_dataset=data, eval_dataset=data, callbacks=[watched("transformers", run)]
        )
        trainer.train()
    history = ended(run)
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(step, mean) for step, mean, _, _ in history.series["train/loss"]] == [(e["step"], e["loss"]) for e in theirs]
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [row.metrics["val/loss"] for row in history.epochs] == evaluated and len(evaluated) == 2
    assert list(history.series["lr"])


def test_transformers_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    with Run.create(tmp_path / "runs", "theirs") as run:
        control = transformers.TrainerControl()
        run.log(1, {"loss": 1.0})
        Run(run.path).tell("stop")
        while not run.should_stop:
            pass
        watched("transformers", run).on_step_end(None, None, control)
        assert control.should_training_stop

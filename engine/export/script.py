"""The plain PyTorch script of a recipe: it needs torch and the library of the data, and on the CPU the losses are the same."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from engine import catalog, execution, metrics
from engine.assemble import assemble_with_data
from engine.data.samples import Prepared
from engine.execution.generators import keep_random_state
from engine.export import tuned
from engine.export.code import Imports, call, layers_of, source_of, unsaid
from engine.export.data import STANDARDIZED, data_lines
from engine.parts import Parts
from engine.recipe import Component, Recipe, Training

CHAINS = ("linear", "mlp", "cnn")  # whose forward calls its layers in the order in which they were made

ORDER = '''
def order(samples, seed, epoch):
    """The order of the samples in an epoch: a function of seed and epoch alone."""
    seed = int(numpy.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
'''


def script(recipe: Recipe) -> str:
    """The text of the script. RecipeError, one sentence that names the field, for what has no plain words.

    The parts are built to know the data's shape; the global random state is left as it was.
    """
    with keep_random_state():
        _refuse(recipe.training)
        parts, data = assemble_with_data(recipe)
        return _Writer(recipe, parts, data).text()


def _refuse(plan: Training) -> None:
    """What is more than the tutorial's loop."""
    usual = Training()
    for name, why in {
        "max_steps": "a script trains whole epochs",
        "max_minutes": "a script trains whole epochs",
        "validate_steps": "a script validates at the end of an epoch",
        "non_finite": "a script does not look at each step",
    }.items():
        if getattr(plan, name) != getattr(usual, name):
            raise unsaid(f"training.{name}", getattr(plan, name), why)
    if plan.precision == "fp16":
        raise unsaid("training.precision", plan.precision, "it needs a gradient scaler")
    if plan.execution == "compiled":
        raise unsaid("training.execution", plan.execution, "a script is eager")


@dataclass(slots=True)
class _Writer:
    recipe: Recipe
    parts: Parts
    data: Prepared
    imports: Any = None

    def text(self) -> str:
        recipe, plan = self.recipe, self.recipe.training
        self.imports = Imports("import numpy", "import torch", "from torch import nn")
        data = data_lines(recipe, self.data, self.imports)
        model = self.model()
        changed = [*tuned.started(plan, self.imports), *tuned.frozen(plan, self.parts, self.imports)]
        optimizer, scheduler = list(self.optimizer()), list(self.scheduler())
        loop = self.loop()
        sizes = {"SEED": recipe.seed, "EPOCHS": plan.epochs, "BATCH_SIZE": recipe.loading.batch_size}
        if plan.accumulate > 1:
            sizes["ACCUMULATE"] = plan.accumulate
        head = [f"{', '.join(sizes)} = {', '.join(map(str, sizes.values()))}", *self.switches()]
        data += self.placed()
        functions = ORDER + ("\n" + STANDARDIZED if any("standardized(" in line for line in data) else "")
        definition, built = model
        lines = [built, *changed, *optimizer, *scheduler]
        blocks = [
            _docstring(recipe),
            self.imports.text() + "\n",
            "\n".join(head) + "\n\n",
            *([definition + "\n\n"] if definition else []),
            functions.strip("\n") + "\n\n",
            "# The data\n" + "\n".join(data) + "\n",
            "# Model, loss and optimizer\ntorch.manual_seed(SEED)\n" + "\n".join(lines) + "\n",
            "# The loop\n" + "\n".join(loop),
        ]
        return "\n".join(blocks).rstrip() + "\n"

    # Where and how

    @property
    def moved(self) -> str:
        """What tensors are moved by, empty where they stay: on the CPU in float32."""
        precision = self.recipe.training.precision
        dtype = execution.weights_type(precision)
        return ", ".join(
            ([] if self.recipe.training.device == "cpu" else ["device"]) + ([] if dtype == torch.float32 else [str(dtype)])
        )

    def placed(self) -> Iterable[str]:
        """Tensors to where the model is; floats as its type."""
        device = ["device"] if "device" in self.moved else []
        parts = ("train", "val") if self.parts.validation is not None else ("train",)
        assert isinstance(self.data.train, tuple)
        for letter, tensor in zip("xy", self.data.train, strict=True):
            said = ", ".join(
                device + ([self.moved.split(", ")[-1]] if tensor.is_floating_point() and "." in self.moved else [])
            )
            if said:
                names = [f"{letter}_{part}" for part in parts]
                yield f"{', '.join(names)} = {', '.join(f'{name}.to({said})' for name in names)}"

    def switches(self) -> Iterable[str]:
        plan = self.recipe.training
        if plan.device == "auto":
            yield 'device = torch.accelerator.current_accelerator() or torch.device("cpu")'
        elif plan.device != "cpu":
            yield f"device = torch.device({plan.device!r})"
        if self.parts.threads is not None:
            yield f"torch.set_num_threads({self.parts.threads})"
        if plan.precision == "tf32":
            yield 'torch.set_float32_matmul_precision("high")'
        if plan.deterministic:
            yield "torch.use_deterministic_algorithms(True)"

    # Model, loss, optimizer, scheduler

    def callee(self, kind: str, component: Component, module: str) -> str:
        if ":" not in component.name:
            return f"{module}.{component.name}"
        if component.name.rpartition(":")[0].endswith(".py") or ":" in component.name:
            return str(self.imports.own(component.name))
        raise unsaid(f"{kind}.name", component.name, "it is no name")

    def model(self) -> tuple[str, str]:
        """The definition, and the lines that build it."""
        component, model = self.recipe.model, self.parts.model
        move = f".to({self.moved})" if self.moved else ""
        frozen = set(map(id, self.parts.freezing.normalizations))
        if any(not module.training and id(module) not in frozen for module in model.modules()):
            raise unsaid("model.name", component.name, "some of its modules are in evaluation mode from the start")
        plain = component.name in CHAINS and not tuned.by_name(self.recipe.training)
        chain = layers_of(model) if plain else None
        if chain is not None:
            return "", f"model = {chain}{move}\n{self.loss()}"
        if component.name in ("torchvision", "timm"):
            raise unsaid("model.name", component.name, "its library makes it")
        entry = catalog.find("model", component.name)
        shape: dict[str, Any] = {"input_shape": self.data.input_shape, "output_size": self.data.output_size}
        if self.data.task == "text":
            shape["vocabulary"] = self.data.output_size
        if ":" in component.name:
            definition, name = "", self.callee("model", component, "")
        else:
            definition, name = source_of(entry.target, self.imports, "engine.models"), entry.target.__name__
        return definition, f"model = {call(entry, name, component.arguments, **shape)}{move}\n{self.loss()}"

    def loss(self) -> str:
        component = self.recipe.loss
        if component.name == "auto":
            component = Component(catalog.loss_for(self.data.task), component.arguments)
        arguments = dict(component.arguments)
        weight = getattr(self.parts.loss, "weight", None)
        if weight is not None:
            arguments["weight"] = weight.tolist()
        entry = catalog.find("loss", component.name)
        name = self.callee("loss", component, "nn")
        if not isinstance(entry.target, type):
            return f"loss_fn = {call(entry, f'lambda output, target: {name}', arguments, 'output', 'target')}"
        move = ".to(device)" if weight is not None and "device" in self.moved else ""
        return f"loss_fn = {call(entry, name, arguments)}{move}"

    @property
    def count(self) -> str:
        """What a batch's mean loss was divided by."""
        if self.parts.count is torch.numel:
            return "targets.numel()"
        if getattr(self.parts.loss, "weight", None) is not None:
            return "loss_fn.weight[targets].sum()"
        raise unsaid("loss.name", self.recipe.loss.name, "targets that are left out count differently in each batch")

    def optimizer(self) -> Iterable[str]:
        component = self.recipe.optimizer
        entry = catalog.find("optimizer", component.name)
        if entry.closure:
            raise unsaid("optimizer.name", component.name, "it evaluates the loss itself, several times a step")
        if entry.partner:
            raise unsaid("optimizer.name", component.name, f"it shares the model with {entry.partner}")
        for key in entry.extras:
            if component.arguments.get(key):
                raise unsaid(f"optimizer.{key}", component.arguments[key], "parameters are grouped by name and kind")
        name = self.callee("optimizer", component, "torch.optim")
        parameters, later = "model.parameters()", self.recipe.training.freeze_epochs is not None
        if self.parts.frozen and not later:
            parameters = "[parameter for parameter in model.parameters() if parameter.requires_grad]"
        yield f"optimizer = {call(entry, name, component.arguments, parameters)}"
        if self.recipe.training.ema:
            self.imports.add("from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn")
            yield f"average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn({self.recipe.training.ema!r}))"

    def scheduler(self) -> Iterable[str]:
        component, schedule, plan = self.recipe.scheduler, self.parts.schedule, self.recipe.training
        if component is None or schedule is None:
            return
        entry = catalog.find("scheduler", component.name)
        arguments = {key: value for key, value in component.arguments.items() if value is not None}
        if entry.name == "chain" or arguments.get("warmup"):
            field, value = ("name", "chain") if entry.name == "chain" else ("warmup", arguments["warmup"])
            raise unsaid(f"scheduler.{field}", value, "each of several schedulers has its own length")
        if entry.name == "constant":
            return
        planned = plan.length(self.parts.train.length)
        span = planned.steps if schedule.unit == "step" else planned.epochs
        for key, origin in entry.derived.items():
            usual = self.parts.optimizer.defaults.get("lr") if origin == "lr" else max(1, span or 0)
            arguments.setdefault(key, usual)
        if schedule.unit == "plateau":
            arguments.setdefault("mode", self.monitored[1])
        name = self.callee("scheduler", component, "torch.optim.lr_scheduler")
        yield f"scheduler = {call(entry, name, arguments, 'optimizer')}"

    # The loop

    @property
    def monitored(self) -> tuple[str, str]:
        plan = self.recipe.training
        return metrics.monitored(plan.monitor, self.parts.validation is not None, self.parts.metrics)

    def advance(self, metric: str = "") -> str:
        """The scheduler's step, held where its length ends before the run does."""
        schedule, planned = self.parts.schedule, self.recipe.training.length(self.parts.train.length)
        assert schedule is not None
        calls = planned.steps if schedule.unit == "step" else planned.epochs
        if schedule.length is not None and calls is not None and calls > schedule.length + 1:
            return f"if scheduler.last_epoch < {schedule.length}:\n    scheduler.step()"
        return f"scheduler.step({metric})"

    def loop(self) -> list[str]:
        plan, loading = self.recipe.training, self.recipe.loading
        samples = "order(len(x_train), SEED, epoch)" if loading.shuffle else "torch.arange(len(x_train))"
        if loading.drop_last:
            samples += "[: len(x_train) // BATCH_SIZE * BATCH_SIZE]"
        if "device" in self.moved:
            samples += ".to(device)"
        body = [*tuned.begun(plan, self.parts), "total, count = 0.0, 0.0"]
        if plan.accumulate == 1:
            body += [f"for batch in {samples}.split(BATCH_SIZE):", *_inside(self.step())]
        else:
            body += [
                f"batches = {samples}.split(BATCH_SIZE)",
                "for start in range(0, len(batches), ACCUMULATE):",
                *_inside(self.window()),
            ]
        body += ["train_loss = total / count"]
        said = ["epoch {epoch}", "train/loss {train_loss!r}"]
        validated = self.validation()
        every = plan.validate_every > 1 and validated
        if validated:
            if every:
                said_then = [*said, "val/loss {val_loss!r}", *(["val/accuracy {accuracy!r}"] if self.classes else [])]
                line = f"if epoch % {plan.validate_every} == 0 or epoch == EPOCHS:"
                body += [line, *_inside([*validated, f'print(f"{"  ".join(said_then)}")', *self.judged()])]
                body += ["else:", *_inside([f'print(f"{"  ".join(said)}")'])]
            else:
                said += ["val/loss {val_loss!r}", *(["val/accuracy {accuracy!r}"] if self.classes else [])]
                body += [*validated, f'print(f"{"  ".join(said)}")', *self.judged()]
        else:
            body += [f'print(f"{"  ".join(said)}")', *self.judged()]
        schedule = self.parts.schedule
        if schedule is not None and schedule.unit == "epoch" and self.scheduled:
            body += self.advance().split("\n")
        if plan.patience is not None:
            body += [f"if waited >= {plan.patience}:", "    break  # no better value in so many validations"]
        worst = "float('inf')" if self.monitored[1] == "min" else "-float('inf')"
        start = [f"best, waited = {worst}, 0"] if plan.patience is not None else []
        return [*start, "for epoch in range(1, EPOCHS + 1):", *_inside(body)]

    @property
    def scheduled(self) -> bool:
        return self.recipe.scheduler is not None and self.recipe.scheduler.name != "constant"

    @property
    def classes(self) -> bool:
        return self.data.task in ("classification", "text")

    def forward(self, target: str) -> list[str]:
        if self.recipe.training.precision != "bf16":
            return [target]
        place = "device.type" if "device" in self.moved else "'cpu'"
        return [f"with torch.autocast({place}, torch.bfloat16):", f"    {target}"]

    def update(self) -> list[str]:
        plan, schedule = self.recipe.training, self.parts.schedule
        lines = []
        if plan.clip_norm is not None:
            lines.append(f"nn.utils.clip_grad_norm_(model.parameters(), {plan.clip_norm!r})")
        if plan.clip_value is not None:
            lines.append(f"nn.utils.clip_grad_value_(model.parameters(), {plan.clip_value!r})")
        lines.append("optimizer.step()")
        if plan.ema:
            lines.append("average.update_parameters(model)")
        if schedule is not None and schedule.unit == "step" and self.scheduled:
            lines += self.advance().split("\n")
        return lines

    def step(self) -> list[str]:
        return [
            "inputs, targets = x_train[batch], y_train[batch]",
            "optimizer.zero_grad()",
            *self.forward("loss = loss_fn(model(inputs), targets)"),
            "loss.backward()",
            *self.update(),
            f"total += loss.item() * float({self.count})" if self.weighted else f"total += loss.item() * {self.count}",
            f"count += float({self.count})" if self.weighted else f"count += {self.count}",
        ]

    @property
    def weighted(self) -> bool:
        return self.parts.count is not torch.numel

    def window(self) -> list[str]:
        """A step of several batches, whose gradient is that of the one big batch."""
        counted = self.count.replace("targets", "y_train[batch]")
        zero = "torch.zeros((), device=device)" if "device" in self.moved else "torch.zeros(())"
        return [
            "window = batches[start : start + ACCUMULATE]",
            f"whole = sum({counted} for batch in window)",
            "optimizer.zero_grad()",
            f"step_loss = {zero}",
            "for batch in window:",
            "    inputs, targets = x_train[batch], y_train[batch]",
            *_inside(self.forward("loss = loss_fn(model(inputs), targets)")),
            f"    loss = loss * ({self.count} / whole)  # its share of the one big batch",
            "    loss.backward()",
            "    step_loss = step_loss + loss.detach()",
            *self.update(),
            "total += step_loss.item() * float(whole)",
            "count += float(whole)",
        ]

    def validation(self) -> list[str]:
        if self.parts.validation is None:
            return []
        model = "average" if self.recipe.training.ema else "model"
        count = f"float({self.count})" if self.weighted else self.count
        own = ":" in self.recipe.model.name
        there = ", device=device" if "device" in self.moved else ""
        lines = [
            f"{model}.eval()",
            f"total, count{', right' if self.classes else ''} = 0.0, 0.0{', 0' if self.classes else ''}",
            f"with torch.no_grad(){', torch.random.fork_rng()' if own else ''}:",
            f"    for batch in torch.arange(len(x_val){there}).split(BATCH_SIZE):",
            "        inputs, targets = x_val[batch], y_val[batch]",
            *_inside(_inside(self.evaluated(model))),
            f"        total += loss.item() * {count}",
            f"        count += {count}",
        ]
        if self.classes:
            lines.append("        right += (output.argmax(1) == targets).sum().item()")
            return [*lines, "val_loss, accuracy = total / count, right / y_val.numel()"]
        return [*lines, "val_loss = total / count"]

    def evaluated(self, model: str) -> list[str]:
        lines = [f"output = {model}(inputs)", "loss = loss_fn(output, targets)"]
        if self.recipe.training.precision != "bf16":
            return lines
        return [*self.forward("")[:1], *_inside(lines)]

    def judged(self) -> list[str]:
        """What the monitored metric decides: a plateau schedule's step, and patience."""
        plan, schedule = self.recipe.training, self.parts.schedule
        plateau = schedule is not None and schedule.unit == "plateau"
        if not plateau and plan.patience is None:
            return []
        name, mode = self.monitored
        value = {"train/loss": "train_loss", "val/loss": "val_loss", "val/accuracy": "accuracy"}.get(name)
        if value is None or (name == "val/accuracy" and not self.classes) or (
            name == "train/loss" and plan.validate_every > 1 and self.parts.validation is not None
        ):  # fmt: skip
            raise unsaid("training.monitor", name, "the script measures train/loss, val/loss and val/accuracy")
        lines = [f"scheduler.step({value})"] if plateau else []
        if plan.patience is not None:
            better = f"{value} < best - {plan.min_delta!r}" if mode == "min" else f"{value} > best + {plan.min_delta!r}"
            better = better.removesuffix(" - 0.0").removesuffix(" + 0.0")
            lines += [f"if {better}:", f"    best, waited = {value}, 0", "else:", "    waited += 1"]
        return lines


def _inside(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for text in lines for line in text.split("\n")]


def _docstring(recipe: Recipe) -> str:
    said = (
        f"{recipe.name}: the plain PyTorch of an epochal recipe. It prints the losses of each epoch; on a CPU with the same "
        "torch they are those of `epochal train`, to the last bit."
    )
    return '"""' + textwrap.fill(said, 110) + '\n"""\n'

"""Optuna's side of a search: its storage, its samplers and pruners by the names that a recipe gives them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from engine.errors import EpochalError, Problem, RecipeError, nearest
from engine.search.plan import Choices, Plan, made_of

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

T = TypeVar("T")
INDEPENDENT = ("random", "grid", "bruteforce", "qmc")  # samplers that do not learn from the trials before


def load() -> Any:
    """Optuna, quiet. EpochalError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise EpochalError('a search needs Optuna, which is not installed: pip install "epochal[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_study(path: Path, name: str, direction: str | None = None) -> optuna.Study:
    """The study of that name in this file; with a `direction` it is made where there is none. EpochalError."""
    optuna = load()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        if direction is not None and path.exists():
            _mend(path)
        storage = JournalStorage(JournalFileBackend(str(path)))
        if direction is None:
            return optuna.load_study(study_name=name, storage=storage)  # type: ignore[no-any-return]
        return optuna.create_study(  # type: ignore[no-any-return]
            study_name=name, storage=storage, direction=direction, load_if_exists=True
        )
    except KeyError:
        raise EpochalError(f"{path} holds no study called {name!r}") from None
    except OSError as error:
        raise EpochalError(f"{path} can't be used: {error.strerror}") from error
    except ValueError as error:
        raise EpochalError(f"{path} is damaged: {error}") from error


def _mend(path: Path) -> None:
    """Cut off a last line that a power cut tore: nobody was told that it is there, and Optuna would read nothing after it."""
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()  # nobody is in the middle of one
    try:
        with path.open("r+b") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
    finally:
        lock.release()


def sampler_of(plan: Plan, seed: int, number: int) -> BaseSampler:
    """The sampler that is asked for the trial of that number: what it draws is a function of the seed, the number and the
    trials before, so that a search that is interrupted goes on as if it had not been."""
    optuna = load()
    name, given = plan.sampler
    cls = _class("sampler", name, optuna.samplers, "Sampler", leave_out=("BaseSampler", "BaseGASampler", "PartialFixedSampler"))
    own = (seed * 1_000_003 + number) % 2**32
    arguments: dict[str, Any] = {"seed": own}
    if plan.exhaustive:
        called = "grid" if name == "grid" else "brute_force"
        for key, axis in plan.space.items():
            if axis.points is None:
                _refuse("sampler", f"search.sampler is {called!r}, and {key} has no end of values: list them, or give a step")
            if name == "grid" and key in plan.only:
                _refuse("sampler", f"search.sampler is 'grid', and not every trial has {key}: 'brute_force' can do that")
        cls = _without_stop(cls)
    if name == "grid":
        arguments = {"seed": seed % 2**32, "search_space": {key: axis.points for key, axis in plan.space.items()}}
    elif name == "qmc":  # its sequence is one; what is no number is drawn anew each time
        arguments = {"seed": seed % 2**32, "independent_sampler": optuna.samplers.RandomSampler(seed=own)}
    made: BaseSampler = _made("sampler", name, cls, {**arguments, **given})
    return made


def pruner_of(plan: Plan, epochs: int) -> BasePruner:
    """The pruner; its steps are epochs, of which a trial has so many."""
    return _pruner(load(), *plan.pruner, epochs)


def _pruner(optuna: Any, name: str, given: Mapping[str, Any], epochs: int) -> BasePruner:
    cls = _class("pruner", name, optuna.pruners, "Pruner", leave_out=("BasePruner",), none="NopPruner")
    arguments: dict[str, Any] = {"max_resource": epochs} if name == "hyperband" else {}
    if name == "patient":
        inner = given.get("wrapped_pruner")
        wrapped = None if inner is None else _pruner(optuna, *made_of(inner), epochs)
        given = {**given, "wrapped_pruner": wrapped}
    made: BasePruner = _made("pruner", name, cls, {**arguments, **given})
    return made


def suggest(plan: Plan, trial: optuna.Trial) -> dict[str, Any]:
    """Have the sampler choose the values of a trial, as the recipe has them."""
    chosen: dict[str, Any] = {}
    for key in plan.names_first:
        axis = plan.space[key]
        if not plan.applies(key, chosen):
            continue
        if isinstance(axis, Choices):
            chosen[key] = trial.suggest_categorical(key, axis.points)
        elif axis.whole:
            chosen[key] = trial.suggest_int(key, int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.log)
        else:
            chosen[key] = trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)
    return plan.values_of(chosen)


def _class(kind: str, name: str, module: Any, ending: str, leave_out: tuple[str, ...], none: str = "") -> Any:
    classes = {each.removesuffix(ending).lower(): each for each in module.__all__ if each.endswith(ending)}
    classes = {short: each for short, each in classes.items() if each not in leave_out} | ({"none": none} if none else {})
    if name not in classes:
        _refuse(kind, f"search.{kind} is {name!r}; Optuna has {', '.join(sorted(classes))}{nearest(name, classes)}")
    return getattr(module, classes[name])


def _made(kind: str, name: str, cls: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    known = inspect.signature(cls).parameters
    for key in arguments:
        if key not in known:
            _refuse(
                kind, f"search.{kind}.{key} is no argument of {name}{nearest(key, known) or '; it has ' + ', '.join(known)}"
            )
    needs = [
        key
        for key, each in known.items()
        if each.default is each.empty and key not in arguments and each.kind != each.VAR_KEYWORD
    ]
    if needs:
        table = ", ".join([f'name = "{name}"', *(f"{key} = …" for key in needs)])
        _refuse(kind, f"search.{kind} {name!r} can't do without {' and '.join(needs)}: {kind} = {{ {table} }}")
    try:
        return cls(**arguments)
    except ModuleNotFoundError as error:
        raise EpochalError(
            f"search.{kind} {name!r} needs {error.name}, which is not installed: pip install {error.name}"
        ) from None
    except (TypeError, ValueError) as error:
        _refuse(kind, f"search.{kind} {name!r}: {error}")


def _without_stop(cls: Any) -> Any:
    """The same sampler for who asks and tells: after its last trial it would end a loop of Optuna's that there is not."""
    return type(cls.__name__, (cls,), {"after_trial": lambda *_: None, "__signature__": inspect.signature(cls)})


def _refuse(kind: str, sentence: str) -> NoReturn:
    raise RecipeError([Problem(f"search.{kind}", sentence)])

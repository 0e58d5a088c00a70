"""Fields that the engine adds to torch's own: parameter groups, warm-up, chains; and what is wrong in a list of tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.catalog.fields import REQUIRED, Field
from engine.errors import Problem, nearest

if TYPE_CHECKING:
    from engine.catalog.entries import Entry

PATTERN = Field(key="pattern", kind="text", help="the parameters' names, with * and ?: head.*")
UNIT_HELP = "what the scheduler counts: epochs or optimizer steps"
LENGTH = Field(key="length", kind="integer", default=None, optional=True, minimum=1, derived="the rest of the run")

_NO_DECAY = Field(
    key="no_decay",
    kind="boolean",
    default=False,
    help="no weight decay for biases and the parameters of normalization layers, whatever their group",
)
_GROUPS = Field(
    key="groups",
    kind="list",
    item="table",
    default=None,
    optional=True,
    derived="one group",
    help="tables with a pattern of parameter names and what differs for them, such as lr; the first that fits is taken",
)
_WARMUP = (
    Field(key="warmup", kind="integer", default=0, minimum=0, help="length of a linear warm-up before it, in its unit"),
    Field(
        key="warmup_start",
        kind="number",
        default=0.01,
        minimum=1e-6,
        maximum=1.0,
        help="share of the learning rate with which the warm-up begins",
    ),
)
_WARMUP_UNIT = Field(
    key="warmup_unit",
    kind="text",
    default=None,
    optional=True,
    choices=("epoch", "step"),
    derived="the scheduler's unit",
    help="what the length of the warm-up counts: epochs or optimizer steps",
)


_REST = {  # what the optimizers of torch that share a model do not take
    "Muon": "embeddings, the output layer and all that is no matrix",
    "SparseAdam": "all but embeddings made with sparse=True",
}


def of_optimizer(fields: Sequence[Field], partner: Sequence[Field], name: str) -> tuple[Field, ...]:
    """What the engine adds to an optimizer's `fields`. `partner` are those of the optimizer that takes what `name` does not."""
    prefix = "adam_"
    added = [
        replace(field, key=prefix + field.key, help=f"{field.help}, for what {name} does not take: {_REST[name]}")
        for field in partner
        if field.key in ("lr", "weight_decay")
    ]
    if any(field.key == "weight_decay" for field in (*fields, *partner)):
        added.append(_NO_DECAY)
    return (*added, _GROUPS)


def of_scheduler(unit: str, warms_up: bool) -> tuple[Field, ...]:
    """What the engine adds to a scheduler that counts `unit`; one that `warms_up` itself gets no warm-up before it."""
    units = (Field(key="unit", kind="text", default=unit, choices=("epoch", "step"), help=UNIT_HELP),)
    return (*(units if unit != "plateau" else ()), *(() if warms_up else (*_WARMUP, _WARMUP_UNIT)))


CHAIN = Field(
    key="chain",
    kind="list",
    item="table",
    help="tables with a scheduler's name, its arguments and its length in the unit; each begins at the optimizer's lr",
)


def of_group(entry: Entry, partner: Entry | None) -> tuple[Field, ...]:
    """What a table in an optimizer's `groups` can set: what torch keeps for each group of parameters."""
    own = [field for field in entry.fields if field.key not in (*entry.extras, "foreach", "fused", "maximize")]
    if partner is not None:  # a pattern may take parameters of both
        both = {field.key for field in partner.fields} & {"lr", "weight_decay"}
        own = [field for field in own if field.key in both]
    return (PATTERN, *(field if field.default is REQUIRED else replace(field, optional=True) for field in own))


def problems_of(section: str, tables: Any, fields: Sequence[Field], what: str) -> Iterator[Problem]:
    """What is wrong in each of the tables, whose place is `section`: optimizer.groups."""
    for i, table in enumerate(tables):
        if isinstance(table, Mapping):  # the field itself says when one is none
            yield from problems_of_table(f"{section}[{i}]", table, fields, what)


def problems_of_table(place: str, table: Mapping[str, Any], fields: Sequence[Field], what: str) -> Iterator[Problem]:
    """What is wrong with the values in one table, and which of its keys there are not."""
    yield from of_fields(place, table, fields)
    yield from unknown(place, table, [field.key for field in fields], what)


def of_fields(section: str, given: Mapping[str, Any], fields: Sequence[Field]) -> Iterator[Problem]:
    """What is wrong with the values of these fields."""
    for field in fields:
        value = given.get(field.key)
        if value is not None or field.default is REQUIRED:
            problem = field.problem(section, value)
            if problem is not None:
                yield problem


def unknown(section: str, given: Mapping[str, Any], known: Collection[str], what: str) -> Iterator[Problem]:
    """The keys that do not belong into a section, each with the nearest one that does."""
    for key in given:
        if key not in known:
            dotted = f"{section}.{key}" if section else str(key)
            hint = nearest(str(key), known) or f"; there are {', '.join(known)}"
            yield Problem(dotted, f"{dotted} is no {what}{hint}")

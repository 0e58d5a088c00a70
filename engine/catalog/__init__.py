"""The catalog: everything a recipe can name, and the fields that go with it. torch loads with the first kind that needs it."""

from __future__ import annotations

from engine.catalog.check import problems, sections
from engine.catalog.entries import Entry, entries, find, fitting, names, unfit
from engine.catalog.fields import REQUIRED, Field, Section
from engine.catalog.own import resolve
from engine.catalog.signature import fields_of, fields_of_options
from engine.catalog.tasks import loss_for
from engine.recipe import KINDS

__all__ = [
    "KINDS",
    "REQUIRED",
    "Entry",
    "Field",
    "Section",
    "entries",
    "fields_of",
    "fields_of_options",
    "find",
    "fitting",
    "loss_for",
    "names",
    "problems",
    "resolve",
    "sections",
    "unfit",
]

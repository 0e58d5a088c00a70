"""The training engine of epochal: recipes, the loop, runs. Torch loads with the first name that needs it."""

from __future__ import annotations

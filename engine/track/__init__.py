"""Tracking: runs of loops that are not ours, and what other tools write and read of runs."""

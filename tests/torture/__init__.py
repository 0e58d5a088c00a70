"""Trainers that are killed at random moments and resumed until they end: `python -m tests.torture --cycles 1000`."""

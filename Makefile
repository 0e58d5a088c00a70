# Two commands: `make run` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: run test test-gpu-simulated lint format clean torture bench bench-gpu bench-memory bench-start bench-log bench-processes profile bench-peers bench-peers-here scoreboard scoreboard-here bench-console snapshots screenshots

run: $(VENV)/installed
	@$(BIN)/epochal

# A file of tests for each processor at a time: many of them wait for a terminal or a process. What fails so is tried alone:
# what passes then has a race, is named in the output, and is to be mended, but says nothing of the change at hand.
PYTEST = $(BIN)/python -m pytest
test: lint
	$(PYTEST) -n logical --maxprocesses 4 --dist loadfile || \
	{ test $$? = 1 && echo "once more, each alone:" && $(PYTEST) -v --last-failed --last-failed-no-failures none; }

# The tests of a GPU on a simulated one, which also counts launches and waits: five minutes, and a C++ compiler.
test-gpu-simulated: $(VENV)/installed-test
	$(PYTEST) -p tests.gpu.simulated.plugin -n logical --maxprocesses 4 tests/gpu

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Trainers that are killed at random moments and resumed, a thousand times: some ten minutes, and nothing may be lost.
CYCLES ?= 1000
SEED ?= 0
torture: $(VENV)/installed-test
	@$(BIN)/python -m tests.torture --cycles $(CYCLES) --seed $(SEED)

# Steps a second beside the tutorial's loop: a table in Markdown. With peers: other trainers too, in their own environment.
bench: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.race

bench-gpu: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.race --device cuda --peers

# What a million steps keep: memory, journal, history; how long it takes to begin; where the time of one step goes.
bench-memory: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.memory

bench-start: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.start

# What several processes gain here, and what they tell each other.
bench-processes: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.processes

# What `run.log` costs somebody's own loop.
bench-log: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.log

profile: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.profile

bench-peers:
	@$(MAKE) --no-print-directory bench-peers-here VENV=.venv-peers

bench-peers-here: $(VENV)/installed-peers
	@$(BIN)/python -m tests.benchmarks.race --peers

# What the console costs: first frame, share of the training, bytes, keys.
bench-console: $(VENV)/installed
	@$(BIN)/python -m tests.benchmarks.console

# The README's pictures, of the real program while it trains.
screenshots: $(VENV)/installed
	@COLORTERM=truecolor $(BIN)/python -m tests.screenshots

# The text of every screen, as the snapshot tests compare it: written anew, to be read as a diff.
snapshots: $(VENV)/installed-test
	EPOCHAL_WRITE_SNAPSHOTS=1 $(BIN)/python -m pytest tests/tui/test_snapshots.py
	@git diff --stat -- tests/tui/snapshots

# Known bugs, tried on other trainers in an environment of their own: a table in Markdown.
scoreboard:
	@$(MAKE) --no-print-directory scoreboard-here VENV=.venv-peers

scoreboard-here: $(VENV)/installed-peers
	@$(BIN)/python -m tests.peers.scoreboard

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-peers: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[peers]'
	$(BIN)/python -m pip uninstall --quiet --yes torchvision # fastai brings one that need not fit this torch; none of them needs it
	@touch $@ $(VENV)/installed

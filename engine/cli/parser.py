"""What the command line understands."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from engine.changes import FIELDS
from engine.cli.options import (
    CHECKPOINT,
    RUNS,
    Formatter,
    Parser,
    count,
    model_options,
    output_options,
    processes_options,
    recipe_options,
    runs_option,
    sentence,
)
from engine.cli.output import Stream
from engine.run.choose import SORTS


def make_parser(prog: str) -> Parser:
    """The parser of all commands. `prog` is how the program was called."""
    parser = _parser(prog=prog, description="Train PyTorch models from recipes, exactly and resumably.")
    if prog == "epochal":
        parser.epilog = _CONSOLE
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(prog=prog, run_command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)

    def command(name: str, where: str, help: str, description: str = "", function: str = "") -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=help, description=description or sentence(help), allow_abbrev=False, formatter_class=Formatter
        )
        made.set_defaults(run_command=_Lazy(where, function or name))
        return made

    _training(command)
    _runs(command)
    _others(command)
    return parser


Command = Callable[..., argparse.ArgumentParser]  # adds one: its name, the module of its function, its help, its description


def _training(command: Command) -> None:
    """What trains."""
    train = command("train", "engine.cli.train", "train a recipe", _TRAIN)
    train.add_argument("recipe", metavar="RECIPE.toml", nargs="?", help=_RECIPE)
    recipe_options(train)
    group = train.add_mutually_exclusive_group()
    runs_option(group)
    group.add_argument("--no-run", action="store_true", help="write nothing to disk")
    processes_options(train)
    output_options(train)
    train.add_argument("--background", action="store_true", help=_BACKGROUND)

    sweep = command("sweep", "engine.cli.sweep", "train a recipe once for each of several values", _SWEEP)
    sweep.add_argument("axes", metavar="[RECIPE.toml] FIELD=VALUES", nargs="+", help=_AXES)
    recipe_options(sweep)
    runs_option(sweep)
    sweep.add_argument("--list", action="store_true", help="print the combinations and train nothing")
    sweep.add_argument("--background", action="store_true", help=_BACKGROUND.replace("run has", "first run has"))
    quiet = sweep.add_mutually_exclusive_group()
    quiet.add_argument("--json", action="store_true", help="print what came of each as one JSON list, the best first")
    quiet.add_argument("--quiet", action="store_true", help="print only the table")

    search = command("search", "engine.cli.search", "search the values of a recipe's fields, with Optuna", _SEARCH)
    search.add_argument("what", metavar="RECIPE.toml | SEARCH | RUN", nargs="?", help=_SEARCHED)
    act = search.add_mutually_exclusive_group()
    act.add_argument("--join", action="store_true", help="work on a search that is there, beside whoever does so already")
    act.add_argument("--show", action="store_true", help="print the leaderboard and train nothing")
    act.add_argument("--stop", action="store_true", help="have all workers stop with a checkpoint; the next start goes on")
    act.add_argument("--background", action="store_true", help="in a process of its own, which outlives this terminal")
    search.add_argument("--trials", type=count, metavar="N", help="short for --set search.trials=N")
    search.add_argument("--minutes", metavar="M", help="short for --set search.minutes=M")
    search.add_argument("--workers", type=count, metavar="K", help="so many processes; short for --set search.workers=K")
    search.add_argument("--sampler", metavar="NAME", help="short for --set search.sampler=NAME")
    search.add_argument("--pruner", metavar="NAME", help="short for --set search.pruner=NAME")
    recipe_options(search)
    runs_option(search)
    told = search.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="print the leaderboard as one JSON object at the end")
    told.add_argument("--quiet", action="store_true", help="print only the leaderboard at the end")

    _queue(command("queue", "engine.cli.queue", "train recipes one after another, in the background", _QUEUE))

    resume = command("resume", "engine.cli.train", "go on with a run from its last checkpoint", _RESUME)
    resume.add_argument("run", metavar="RUN", nargs="?", default="last", help=_RUN)
    longer = resume.add_mutually_exclusive_group()
    longer.add_argument("--epochs", type=count, metavar="N", help="train until N epochs are done, counted from the beginning")
    longer.add_argument("--steps", type=count, metavar="N", help="train until N steps are taken, counted from the beginning")
    runs_option(resume)
    processes_options(resume)
    output_options(resume)
    resume.add_argument("--background", action="store_true", help=_BACKGROUND)

    fork = command("fork", "engine.cli.train", "begin a new run at a checkpoint of another, with changed settings", _FORK)
    fork.add_argument("run", metavar="RUN", nargs="?", default="last", help=_RUN)
    fork.add_argument("--step", metavar="N", default="last", help="the step of the checkpoint, or best; left out: the last")
    recipe_options(fork)
    runs_option(fork)
    processes_options(fork)
    output_options(fork)
    fork.add_argument("--background", action="store_true", help=_BACKGROUND)

    slurm = command("slurm", "engine.cli.slurm", "print the script of a Slurm job that trains a recipe", _SLURM)
    slurm.add_argument("recipe", metavar="RECIPE.toml", nargs="?", help=_RECIPE)
    recipe_options(slurm)
    slurm.add_argument("--nodes", type=count, metavar="N", default=1, help="machines")
    slurm.add_argument("--gpus", type=count, metavar="N", help="GPUs of each, and processes; left out: training.processes")
    slurm.add_argument("--cpus", type=count, metavar="N", help="CPUs of each")
    slurm.add_argument("--time", default="4:00:00", help="for how long, as Slurm writes it; left out: 4:00:00")
    slurm.add_argument("--warning", type=count, metavar="S", default=120, help="seconds before the end for a checkpoint: 120")
    slurm.add_argument("--restarts", type=count, metavar="N", default=3, help="after a process has died, within the job: 3")
    slurm.add_argument("--partition", metavar="P", help="Slurm's partition")
    slurm.add_argument("--account", metavar="A", help="Slurm's account")
    slurm.add_argument("--stop", action="store_true", help="for that script: stop the job's run with a checkpoint")
    runs_option(slurm)


def _runs(command: Command) -> None:
    """What is done with runs, while they train and later."""
    attach = command("attach", "engine.cli.attach", "follow a run of another process until it ends", _ATTACH)
    attach.add_argument("run", metavar="RUN", nargs="?", default="last", help=_RUN)
    attach.add_argument("--plain", action="store_true", help="rows also where there is a terminal for the console")
    runs_option(attach)
    output_options(attach)

    for name, what, function in _STEERING:
        steering = command(name, "engine.cli.steer", what, f"{what[0].upper()}{what[1:]}. {_STEER}", function)
        steering.add_argument("run", metavar="RUN", help=_RUN.partition(" (")[0])
        if name == "set":
            steering.add_argument("changes", metavar="FIELD=VALUE", nargs="+", help=_CHANGES)
        if name == "stop":
            steering.add_argument("--wait", action="store_true", help="return when the run has ended, however long that takes")
        runs_option(steering)

    runs = command("runs", "engine.cli.show", "list the runs, those at work first")
    runs_option(runs)
    runs.add_argument("--filter", metavar="TEXT", default="", help="only those with this in name, state, tag or settings")
    runs.add_argument("--tag", metavar="TAG", help="only those with exactly this tag")
    runs.add_argument("--sort", metavar="COLUMN", help=f"by one of {', '.join(SORTS)}: the best, newest or furthest first")
    runs.add_argument("--reverse", action="store_true", help="the other way round")
    runs.add_argument("--json", action="store_true", help="as one JSON list")

    view = command("view", "engine.cli.show_run", "look at runs, event files of TensorBoard or CSV metrics", _VIEW)
    view.add_argument("where", metavar="DIR", nargs="?", default=".", help="a folder, or one CSV file; left out: this one")

    show = command(
        "show", "engine.cli.show_run", "show one run: where it is, its verdict, its step by phase, its layers", "", "show"
    )
    show.add_argument("run", metavar="RUN", nargs="?", default="last", help=_RUN)
    show.add_argument("--json", action="store_true", help="as one JSON object")
    runs_option(show)

    tag = command("tag", "engine.cli.manage", "keep a line of text with a run, show it, or take it away")
    tag.add_argument("run", metavar="RUN", help=_RUN.partition(" (")[0])
    tag.add_argument("text", metavar="TEXT", nargs="?", help="left out: what it is; empty (''): it goes")
    runs_option(tag)

    rename = command("rename", "engine.cli.manage", "give a run another name; the time at its beginning stays")
    rename.add_argument("run", metavar="RUN", help=_RUN.partition(" (")[0])
    rename.add_argument("name", metavar="NAME", help="without the time")
    runs_option(rename)

    delete = command("delete", "engine.cli.manage", "remove runs that are not at work, checkpoints and all, after a question")
    delete.add_argument("names", metavar="RUN", nargs="+", help=_RUN.partition(" (")[0])
    delete.add_argument("--yes", action="store_true", help="without the question")
    runs_option(delete)

    diff = command(
        "diff", "engine.cli.manage", "in what the recipes of runs differ; of one run, from the default recipe", _DIFF
    )
    diff.add_argument("names", metavar="RUN", nargs="+", help=_RUN.partition(" (")[0])
    runs_option(diff)


def _others(command: Command) -> None:
    """Recipes before they are trained, models afterwards, and the machine."""
    check = command("check", "engine.cli.show", "check a recipe by a dry run of one batch; nothing is written", _CHECK)
    check.add_argument("recipe", metavar="RECIPE.toml", nargs="?", help=_RECIPE)
    check.add_argument("--json", action="store_true", help="as one JSON object: rows, warnings, problems and facts")
    check.add_argument("--sweep", action="append", default=[], metavar="FIELD=VALUES", help="with --json: a sweep's groups too")
    check.add_argument("--trace", metavar="FILE", help=_TRACE)
    recipe_options(check)

    find = command("find-lr", "engine.cli.find_lr", "look for a learning rate to begin with", _FIND_LR, "find_lr")
    find.add_argument("recipe", metavar="RECIPE.toml", nargs="?", help=_RECIPE)
    find.add_argument("--from", type=float, metavar="LR", dest="lowest", help="the lowest rate; left out: 1e-7")
    find.add_argument("--to", type=float, metavar="LR", dest="highest", help="the highest rate; left out: 10")
    find.add_argument("--steps", type=count, metavar="N", help="how many rates are tried; left out: 120")
    find.add_argument("--json", action="store_true", help="one JSON object a step, and the result as the last")
    recipe_options(find)

    evaluate = command("evaluate", "engine.cli.evaluate", "how good a run's model is, and where it is wrong", _EVALUATE)
    evaluate.add_argument("run", metavar="RUN", nargs="?", default="last", help=_MODEL)
    evaluate.add_argument("--data", metavar="DATA", help=_LABELLED)
    evaluate.add_argument("--worst", type=int, default=20, metavar="N", help="how many of the worst samples; left out: 20")
    evaluate.add_argument("--json", action="store_true", help="as one JSON object")
    evaluate.add_argument("--progress", action="store_true", help=argparse.SUPPRESS)
    model_options(evaluate)

    predict = command("predict", "engine.cli.predict", "what a run's model says of new data", _PREDICT)
    predict.add_argument("run", metavar="RUN", help=_MODEL)
    predict.add_argument("data", metavar="DATA", help=_INPUTS)
    predict.add_argument("-o", "--output", metavar="FILE", help="a .csv or .parquet file; left out: CSV on standard output")
    predict.add_argument("--out", metavar="FILE", dest="output", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    predict.add_argument("--probabilities", action="store_true", help="with a column for each class's probability")
    predict.add_argument("--force", action="store_true", help="replace a FILE that is there")
    model_options(predict)

    export = command("export", "engine.cli.export", "write a run's model, or the script of a recipe, for others", _EXPORT)
    export.add_argument("what", metavar="RUN|RECIPE.toml", help=f"{_MODEL}; for a script also a recipe's file")
    export.add_argument("file", metavar="FILE", nargs="?", help=_EXPORTED)
    formats = ("safetensors", "onnx", "torch", "script")
    export.add_argument(
        "--format", choices=formats, metavar="FORMAT", help=f"{', '.join(formats)}; left out: by the file's ending"
    )
    export.add_argument(
        "--script", action="store_true", help="the plain PyTorch script that trains it; short for --format script"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="as FILE")
    export.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)
    export.add_argument("--force", action="store_true", help="replace a FILE that is there")
    runs_option(export)

    examples = command("examples", "engine.cli.examples", "recipes to begin with: list them, or copy one", _EXAMPLES)
    examples.add_argument("name", metavar="NAME", nargs="?", help="the one to copy; left out: list them")
    examples.add_argument("directory", metavar="DIR", nargs="?", help="where to; left out: a directory of its name, here")
    examples.add_argument("--json", action="store_true", help="as JSON")

    doctor = command(
        "doctor", "engine.cli.doctor", "look at versions, devices, terminal and disk: what is wrong, and the remedy", _DOCTOR
    )
    doctor.add_argument("--json", action="store_true", help="as a JSON list")
    runs_option(doctor)

    completion = command("completion", "engine.cli.completion", "what bash, zsh or fish runs to complete commands", _COMPLETION)
    completion.add_argument("shell", metavar="bash|zsh|fish", help="which shell")
    completion.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS).required = False

    catalog = command("catalog", "engine.cli.show", "list what a recipe can name, and the fields of each", _CATALOG)
    catalog.add_argument("kind", metavar="KIND", nargs="?", help="data, model, loss, optimizer or scheduler")
    catalog.add_argument("name", metavar="NAME", nargs="?", help="one of that kind: show its fields")
    catalog.add_argument("--json", action="store_true", help="as JSON")


def _queue(parser: argparse.ArgumentParser) -> None:
    runs_option(parser)
    parser.add_argument("--json", action="store_true", help=_QUEUE_JSON)
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", parser_class=Parser)

    def action(name: str, help: str | None, description: str = "") -> argparse.ArgumentParser:
        shown: dict[str, Any] = {"help": help} if help else {}  # without it the action is not listed
        made: argparse.ArgumentParser = actions.add_parser(
            name, description=description or sentence(help), allow_abbrev=False, formatter_class=Formatter, **shown
        )
        made.add_argument("--runs", metavar="DIR", default=argparse.SUPPRESS, help=RUNS)
        return made

    add = action(
        "add", "put recipes, sweeps, searches, or runs to be gone on with into the queue, and let it begin", _QUEUE_ADD
    )
    add.add_argument("what", metavar="RECIPE.toml | FIELD=VALUES", nargs="*", help=_QUEUED)
    add.add_argument(
        "--resume", action="append", default=[], metavar="RUN", help="go on with this run or search; may be given many times"
    )
    add.add_argument("--first", action="store_true", help="before all that wait")
    add.add_argument("--hold", action="store_true", help="only add: begin nothing where nobody works on the queue")
    recipe_options(add)
    listing = action("list", "list the queue: also what `queue` alone does")
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_QUEUE_JSON)
    for name, help in (("remove", "take jobs out that are not under way"), ("retry", "have stopped or failed jobs wait again")):
        action(name, help).add_argument("jobs", metavar="JOB", nargs="+", type=count, help="its number")
    move = action("move", "begin a job earlier or later")
    move.add_argument("job", metavar="JOB", type=count, help="its number")
    move.add_argument("step", metavar="STEP", type=int, help="so many places later; -1: one earlier, -1000: first of all")
    action("clear", "take out the jobs that have ended; their runs stay")
    start = action("start", "work on the queue, in a process that outlives this terminal; also after hold and stop")
    start.add_argument("--foreground", action="store_true", help="here, until nothing waits; Ctrl-C stops with a checkpoint")
    action("hold", "begin nothing else; what is under way goes on")
    stop = action("stop", "stop what is under way with a checkpoint, and hold the queue; start goes on from there")
    stop.add_argument(
        "jobs", metavar="JOB", nargs="*", type=count, help="only these, for good: the queue goes on with the next"
    )
    action("work", None)
    action("train", None).add_argument("job", type=count)


_CONSOLE = """epochal alone, or epochal RECIPE.toml, opens the console; epochal plot RUN… draws its chart as text; epochal serve
shows the console in a browser."""
_TRAIN = """Train a recipe: one row an epoch, and on a terminal a live line below.
Exit status: 0 finished, 1 the training failed, 2 a mistake in the recipe or the arguments, 130 and 143 stopped by Ctrl-C or
SIGTERM with the step finished and a checkpoint written; a second signal ends at once. A hang-up does not stop it."""
_SWEEP = """Train a recipe once for each combination of the values, each a run of its own, and end with a table, the best
first. One that fails does not stop the others; Ctrl-C or SIGTERM ends the sweep with a checkpoint of what is under way."""
_SEARCH = """Train a recipe again and again with other values of the fields that its [search] names, chosen by Optuna. Each
trial is a run of its own. Ctrl-C stops with checkpoints; the same command goes on from there. Several processes, on several
hosts with the same disk, may work on one search: --workers, --join, or torchrun, whose ranks are workers."""
_SEARCHED = """a recipe with a [search], whose search is begun or gone on with; or a search that is there: its folder, its
name, or a run of one of its trials (left out for --show, --join and --stop: the newest)"""
_QUEUE = """Jobs are trained one after another by a worker process that needs no terminal. A recipe is frozen when it is
queued; one that fails does not stop the rest. A job whose process is killed goes on from its last checkpoint when the queue
is started."""
_QUEUE_ADD = """Put recipes into the queue, each a job; with FIELD=VALUES each recipe becomes one sweep; one
with a [search] is a search. A worker begins at once unless one is there, or the queue is held. Own code that a recipe names
is read when its job begins, in this directory."""
_QUEUE_JSON = "as one JSON object"
_QUEUED = "recipes (left out: an MLP on the digits); fields with values, as for sweep, make a sweep of each"
_AXES = """the recipe (left out: an MLP on the digits), then fields with their values: optimizer.lr=1e-4,1e-3, seed=0..7, or
optimizer.lr=1e-4..1e-1x16 for 16 values on a logarithmic scale"""
_BACKGROUND = """train in a process of its own, which outlives this terminal: return when the run has begun, and print where it
is (with --json one object: run and pid)"""
_STEERING = [
    ("pause", "hold a run after the step under way", ""),
    ("continue", "let a paused run go on", "continue_"),
    ("checkpoint", "have a run write a checkpoint", ""),
    ("validate", "have a run validate", ""),
    ("stop", "end a run after the step under way, with a checkpoint", ""),
    ("set", "change a value of a run while it trains", "set_"),
]
_STEER = """The run may be trained by any process that writes to the same directory, on this host or another. Waits some
seconds to say what came of it. Exit status: 0 done or asked, 1 not done, 2 a mistake, or nobody trains the run."""
_VIEW = """Look at any folder with runs, TensorBoard's event files or CSV files of metrics (Lightning's, Keras's, any with a
column of steps or epochs): in a terminal in the console, which follows what grows; else as a list. Nothing is changed."""
_ATTACH = """Follow a run of another process, or one that has ended: its rows from the beginning, and on a terminal a live
line below, until it ends. Ctrl-C leaves it to itself. In a terminal epochal attach opens the console, which can also steer."""
_RESUME = "Go on with a run from its last checkpoint, exactly as if it had never been interrupted. Exit status as for train."
_SLURM = """Print a script for sbatch: epochal slurm RECIPE.toml --nodes 2 --gpus 4 > job.sh. Warned of the end of its time the
run stops with a checkpoint, the job goes back into the queue, and the same run goes on when its turn comes."""
_FORK = """Begin a new run where another was at a checkpoint: with its weights, the state of its optimizer and its place in
the data where the recipe still allows it, else with its weights alone; a line says which. The other run is not touched. Exit
status as for train."""
_CHECK = "Check a recipe: every field, and a dry run of one real batch on copies. Exit status 2 when something is wrong."
_TRACE = """also record ten training steps with torch.profiler: a .json or .json.gz file for ui.perfetto.dev, replaced where it
is there, and what took most time"""
_FIND_LR = """Look for a learning rate: a copy of the model is trained with a rate that grows from step to step,
until the loss comes apart. Nothing is written. Exit status 2 when something is wrong with the recipe."""
_EXPORT = """Write a run's model as safetensors with the recipe inside, as ONNX or by torch.export, checked against the model on
a real batch; or a recipe, or that of a run, as a script of plain PyTorch that depends on torch and the data's library alone
and on a CPU prints the same losses to the last bit. What such a script can't say is one sentence that names the field."""
_EXPORTED = """ends in .safetensors, .onnx, .pt2 or .py; left out: a script goes to standard output, a model into a file here
that is called like the run"""
_EXAMPLES = """Small recipes with all that they need, one for each kind of task. One is copied, with the data or code that it
names, into a directory, and the command that trains it is printed."""
_CATALOG = """List what a recipe can name: the kinds; all of one KIND, with the reason for those that a recipe can't name; or
the fields of one NAME."""
_DIFF = """Show in what the recipes of runs differ; of one run, from the default recipe. Exit status 1 where they do, as diff
has it."""
_DOCTOR = """Look at versions, devices, the compiler, the terminal, the disk of the runs and the extras: a line for each finding
(ok, warning or problem) with the remedy. Exit status 1 where there is a problem."""
_PREDICT = """Predict with a run's model: a row for each row of DATA, with the label of its class or the value. DATA are
preprocessed as the training's were (the same means and deviations, medians and categories), columns are found by name, and
the training data are not needed. Exit status 2 when something does not fit."""
_EVALUATE = """Evaluate a run's model: every metric of its recipe and its task, the confusion matrix with precision, recall and
F1 of each class, a summary of a regression's errors, and the samples with the largest losses. It is kept in the run as
evaluation.json. Exit status 2 when something does not fit."""
_LABELLED = """a file with targets (.csv, .tsv, .parquet, .npz, .safetensors, .txt, a folder of pictures) or a data set of the
catalog, or own code; left out: the validation part of the recipe"""
_MODEL = """a run: its directory, its name, a part of the name that only it has, or last; or an exported .safetensors file"""
_INPUTS = """a .csv, .tsv, .parquet, .npy, .npz or .safetensors file, a .txt, a folder of pictures, or - for a CSV on standard
input"""
_COMPLETION = """Print what a shell is to run so that Tab completes commands, options, runs, recipes, fields and values. In
~/.bashrc: eval "$(epochal completion bash)"; in ~/.zshrc, after compinit: eval "$(epochal completion zsh)"; in
~/.config/fish/config.fish: epochal completion fish | source."""
_RECIPE = "the recipe; left out: an MLP on the digits"
_RUN = "its directory, its name, a part of the name that only it has, or last (which is also meant when left out)"

_CHANGES = f"""such as lr=3e-4, lr=x0.5 (times what it is) or training.patience=none; it can be {", ".join(FIELDS)}, with or
without what stands before the dot"""


def _parser(**options: Any) -> Parser:
    return Parser(allow_abbrev=False, formatter_class=Formatter, **options)


class _Version(argparse.Action):
    """The version, looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from engine import __version__

        print(f"epochal {__version__}")
        parser.exit()


class _Lazy:
    """A command, imported when it is run."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
        status: int = getattr(importlib.import_module(self._module), self._name)(arguments, out, err)
        return status

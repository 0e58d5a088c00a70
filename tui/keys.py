"""The one table of keys: bindings, footer, help panel and command palette are all made from it."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True, slots=True)
class Key:
    """One thing a key does.

    `screens` says where ("app": everywhere); `hint` is its word in the footer, which for a run that has ended is that of
    "over", for an empty table that of "empty".
    """

    id: str
    key: str  # Textual's name; several, separated by commas
    shown: str  # as a person reads it
    label: str
    help: str
    screens: tuple[str, ...]
    action: str
    hint: str = ""
    palette: bool = True  # False: among the last in the palette, and only where no other key does the same


KEYS: tuple[Key, ...] = (
    # the form
    Key("start", "r", "r", "Start training", "check the recipe and train it", ("form",), "start", "start"),
    Key("start-anywhere", "ctrl+r", "Ctrl-R", "Start from a field", "as r, while text is typed",
        ("form", "field"), "start", "start", palette=False),
    Key("background", "B", "B", "Start in the background", "a process of its own; watch it here",
        ("form",), "background", "background"),
    Key("queue-add", "A", "A", "Add to the queue", "as it is now; trained when its turn comes",
        ("form", "runs", "search"), "queue", "queue"),
    Key("recipes", "o", "o", "Open a recipe", "saved ones, those of earlier runs, examples", ("form",), "recipes", "recipes"),
    Key("recipe-save", "w", "w", "Save the recipe", "under a name, for any directory", ("form",), "save", "save"),
    Key("dry-run", "P", "P", "Dry run", "some real steps, on copies", ("form",), "dry_run", "dry run"),
    Key("find-lr", "L", "L", "Find a learning rate", "loss over a growing rate, on a copy", ("form",), "find_lr", "find lr"),
    Key("script", "Y", "Y", "Script", "plain PyTorch of it, and the command that repeats it", ("form", "train"), "script"),
    Key("filter", "slash", "/", "Filter fields", "by a part of their key or help", ("form",), "filter", "filter"),
    Key("field-next", "down", "↓ ↑", "Next, previous field", "also Tab, Shift-Tab and Enter",
        ("form", "field"), "app.focus_next", "fields", palette=False),
    Key("field-previous", "up", "↑", "Previous field", "", ("form",), "app.focus_previous", palette=False),
    Key("group-next", "right_square_bracket,pagedown", "] [", "Next, previous group", "Data, Model, …; from a text: PgDn",
        ("form",), "group(1)", palette=False),
    Key("group-previous", "left_square_bracket,pageup", "[", "Previous group", "", ("form",), "group(-1)", palette=False),
    Key("default", "backspace", "⌫", "Back to the default", "outside text fields", ("form",), "default", palette=False),
    Key("leave", "escape", "Esc", "Leave the field", "or cancel, close the dry run",
        ("form", "field"), "leave", "leave the field", palette=False),
    # a run
    Key("pause", "space", "space", "Pause or resume", "holds after the step under way", ("train",), "pause", "pause"),
    Key("stop", "s", "s", "Stop and save", "after the step, with a checkpoint", ("train",), "stop", "stop+save"),
    Key("go-on", "r", "r", "Resume the run", "once it has ended, from its last checkpoint", ("train",), "resume"),
    Key("checkpoint", "c", "c", "Checkpoint now", "writes one after the step under way",
        ("train",), "checkpoint", "checkpoint"),
    Key("validate", "v", "v", "Validate now", "after the step under way", ("train",), "validate", "validate"),
    Key("detach", "d", "d", "Detach", "leave the terminal; training goes on", ("train",), "app.detach", "detach"),
    Key("edit", "e", "e", "Change live", "learning rate, limits, length: from the next step on", ("train",), "edit", "edit"),
    Key("verdict", "exclamation_mark", "!", "Explain the verdict", "and the change it proposes", ("train",), "verdict"),
    Key("metric-next", "m", "m M", "Next, previous metric", "what the chart draws",
        ("train", "over", "overlay"), "metric(1)", "metric"),
    Key("metric-previous", "M", "M", "Previous metric", "", ("train", "overlay"), "metric(-1)", palette=False),
    Key("smooth-more", "plus,equals_sign", "+ - 0", "Smoothing more less no", "of the train curve",
        ("train", "over", "overlay"), "smooth(1)", "smooth"),
    Key("smooth-less", "minus", "-", "Less smoothing", "", ("train", "overlay"), "smooth(-1)", palette=False),
    Key("smooth-none", "0", "0", "No smoothing", "", ("train", "overlay"), "smooth(0)", palette=False),
    Key("log", "y", "y", "Logarithmic y axis", "on and off", ("train", "over", "overlay"), "log", "log y"),
    Key("across", "x", "x", "X axis", "steps, epochs or training time", ("train", "over", "overlay"), "across", "axis"),
    Key("recent", "f", "f", "Whole or recent", "the newest part, and the whole again", ("train", "overlay"), "recent"),
    Key("outliers", "O", "O", "Clip outliers", "also o, where no proposal waits", ("train", "overlay"), "outliers"),
    Key("proposal", "o", "o", "Open the proposal", "where a run ended with one; else as O", ("train",), "proposal"),
    Key("zoom-in", "z", "z Z", "Zoom in, out", "around the cursor", ("train", "over", "overlay"), "zoom(1)", "zoom"),
    Key("zoom-out", "Z", "Z", "Zoom out", "", ("train", "overlay"), "zoom(-1)", palette=False),
    Key("pan-left", "h", "h l", "Pan left, right", "by a quarter of what is shown", ("train", "overlay"), "pan(-1)"),
    Key("pan-right", "l", "l", "Pan right", "", ("train", "overlay"), "pan(1)", palette=False),
    Key("cursor-left", "left", "← →", "Cursor", "exact values under it; Esc hides it", ("train", "overlay"), "cursor(-1)"),
    Key("cursor-right", "right", "→", "Cursor right", "", ("train", "overlay"), "cursor(1)", palette=False),
    Key("cursor-off", "escape", "Esc", "No cursor", "then back to the list it was opened from",
        ("train",), "leave", palette=False),
    Key("write", "w", "w", "Write the chart", "CSV and SVG of what is drawn", ("train", "over", "overlay"), "write", "write"),
    Key("pane-1", "1", "1-8", "Pane", "Chart Recipe Epochs Device Output …",
        ("train", "over"), "pane(1)", "panes", palette=False),
    *(Key(f"pane-{n}", str(n), str(n), f"Pane {n}", "", ("train",), f"pane({n})", palette=False) for n in range(2, 7)),
    Key("step", "7", "7", "A step by phase", "where its time goes", ("train",), "pane(7)"),
    Key("layers", "8", "8", "Layer health", "gradient and update of each layer", ("train",), "pane(8)"),
    Key("hide", "H", "H", "Hide the pane", "that has the keyboard; its number brings it back", ("train",), "hide_pane"),
    Key("larger", "right_curly_bracket", "} {", "Pane larger, smaller", "that has the keyboard", ("train",), "size_pane(1)"),
    Key("smaller", "left_curly_bracket", "{", "Smaller pane", "", ("train",), "size_pane(-1)", palette=False),
    Key("layout", "R", "R", "Panes as at first", "all of them, in their usual size", ("train",), "layout"),
    Key("evaluate", "E", "E", "Evaluate", "confusion matrix, classes, worst samples",
        ("train", "runs"), "evaluate", "evaluate"),
    Key("export", "X", "X", "Export the model", "safetensors, ONNX, torch.export, the script", ("train", "runs"), "export"),
    Key("overlay-leave", "escape", "Esc", "Back to the list", "first takes the cursor away", ("overlay",), "leave", "back"),
    # the list of runs
    Key("open", "enter", "Enter", "Look at the run", "attaches to one at work", ("runs",), "open", "look"),
    Key("resume", "r", "r", "Resume the run", "from its last checkpoint", ("runs", "over"), "resume", "resume"),
    Key("fork", "f", "f", "Fork the run", "a new one from any checkpoint, with changes", ("runs",), "fork", "fork"),
    Key("mark", "space", "space", "Mark the run", "for the chart, the comparison, deleting", ("runs",), "mark", "mark"),
    Key("overlay", "v", "v", "Overlay on one chart", "the marked runs, else this one", ("runs",), "overlay", "chart"),
    Key("runs-filter", "slash", "/", "Filter the runs", "words of name, state, tag, recipe", ("runs",), "filter", "filter"),
    Key("sort", "s", "s S", "Sort by the next column", "S the other way round", ("runs",), "sort", "sort"),
    Key("sort-back", "S", "S", "Reverse the order", "", ("runs",), "reverse", palette=False),
    Key("preview", "p", "p", "Preview", "what is under the cursor, below the list, on and off", ("runs", "queue"), "preview"),
    Key("runs-metric", "m", "m M", "Best of the next metric", "in its right direction", ("runs",), "metric(1)", "metric"),
    Key("runs-metric-previous", "M", "M", "Best of the previous metric", "", ("runs",), "metric(-1)", palette=False),
    Key("differences", "c", "c", "Compare recipes", "two marked runs, or this one with the default",
        ("runs",), "compare", "compare"),
    Key("recipe-open", "o", "o", "Open its recipe in the form", "a new run like it", ("runs",), "recipe", "its recipe"),
    Key("ghost", "b", "b", "Ghost", "a run faint behind the one on the screen, and how far off each epoch is",
        ("runs", "train"), "ghost", "ghost"),
    Key("tag", "g", "g", "Tag the run", "a line of text that stays with it", ("runs",), "tag", "tag"),
    Key("rename", "w", "w", "Rename the run", "the time before the name stays", ("runs",), "rename", "rename"),
    Key("delete", "D,delete", "D", "Delete the run", "or the marked ones; asks first", ("runs",), "delete", "delete"),
    Key("runs-leave", "escape", "Esc", "Leave the filter", "then the marks, then the list", ("runs",), "leave", palette=False),
    Key("reload", "u", "u", "Update the list", "reads the directories again", ("runs",), "reload", "update"),
    # the evaluation of a run
    Key("evaluate-again", "r", "r", "Evaluate again", "the run may have gone on", ("evaluation",), "again", "again"),
    Key("evaluate-other", "c", "c", "Other checkpoint", "best or last", ("evaluation",), "checkpoint", "checkpoint"),
    Key("evaluation-pane", "1", "1-3", "Pane", "matrix, classes, worst", ("evaluation",), "pane(1)", "panes", palette=False),
    *(Key(f"evaluation-{n}", str(n), str(n), "Pane", "", ("evaluation",), f"pane({n})", palette=False) for n in (2, 3)),
    Key("evaluation-leave", "escape", "Esc", "Back", "to where you came from", ("evaluation",), "leave", "back"),
    # the queue
    Key("job-open", "enter", "Enter", "Look at the run", "opens a sweep, or a search", ("queue",), "open", "look"),
    Key("queue-start", "r", "r", "Start the queue", "a process of its own trains what waits", ("queue",), "start", "start"),
    Key("job-stop", "s", "s", "Stop the job", "with a checkpoint; the next one begins", ("queue",), "stop", "stop"),
    Key("job-pause", "space", "space", "Pause the job", "or let it go on", ("queue",), "pause", "pause"),
    Key("queue-stop", "S", "S", "Stop the queue", "with a checkpoint, from which r goes on",
        ("queue",), "stop_all", "stop all"),
    Key("queue-hold", "H", "H", "Hold the queue", "what is under way goes on, nothing else begins", ("queue",), "hold", "hold"),
    Key("job-earlier", "K", "K J", "Earlier, later", "among those that wait", ("queue",), "move(-1)", "move"),
    Key("job-later", "J", "J", "Later", "", ("queue",), "move(1)", palette=False),
    Key("job-remove", "D,delete", "D", "Remove the job", "its runs stay", ("queue",), "remove", "remove"),
    Key("job-retry", "R", "R", "Once more", "a stopped or failed job waits again", ("queue",), "retry", "retry"),
    Key("job-overlay", "v", "v", "Overlay on one chart", "the runs of a sweep", ("queue",), "overlay", "chart"),
    Key("job-recipe", "o", "o", "Open its recipe in the form", "", ("queue",), "recipe", "its recipe"),
    Key("queue-leave", "escape", "Esc", "Back", "to where you came from", ("queue", "empty"), "leave", "back", palette=False),
    Key("queue-clear", "X", "X", "Clear the queue", "takes out what has ended", ("queue",), "clear", "clear"),
    # searches
    Key("trial-open", "enter", "Enter", "Look at the trial's run", "attaches to one at work", ("search",), "open", "look"),
    Key("search-on", "r", "r", "Go on with the search", "a process of its own; what was stopped goes on",
        ("search",), "go_on", "go on"),
    Key("search-stop", "s", "s", "Stop the search", "with checkpoints, from which r goes on", ("search",), "stop", "stop"),
    Key("search-best", "o", "o", "Open the best recipe in the form", "or that of the trial", ("search",), "recipe", "recipe"),
    Key("search-overlay", "v", "v", "Overlay on one chart", "the best five", ("search",), "overlay", "chart"),
    Key("search-next", "right_square_bracket", "] [", "Next, previous search", "the newest first",
        ("search",), "search(1)", "search"),
    Key("search-previous", "left_square_bracket", "[", "Previous search", "", ("search",), "search(-1)", palette=False),
    Key("search-leave", "escape", "Esc", "Back", "to where you came from", ("search",), "leave", palette=False),
    # everywhere
    Key("new", "n", "n", "New run", "the form; training goes on",
        ("train", "runs", "over", "queue", "search", "empty"), "app.new", "new run"),
    Key("training", "t", "t", "Back to the training", "the run of this console",
        ("form", "runs", "queue", "search"), "app.training"),
    Key("runs", "a", "a", "Runs", "all runs with their best", ("form", "train", "over", "queue", "search"), "app.runs", "runs"),
    Key("queue", "Q", "Q", "Queue", "what trains one after another, and sweeps",
        ("form", "train", "runs", "over"), "app.queue"),
    Key("searches", "F", "F", "Searches", "leaderboard, importance; of a trial its search",
        ("form", "train", "runs", "over", "queue"), "app.searches"),
    Key("focus", "tab", "Tab", "Next pane or field", "Shift-Tab goes back", ("app",), "app.focus_next", palette=False),
    Key("palette", "colon,ctrl+p", ": Ctrl-P", "Command palette", "every action by name",
        ("app",), "app.command_palette", palette=False),
    Key("first-steps", "i", "i", "First steps", "ready experiments; on a run a tour of the screen",
        ("app",), "app.first_steps"),
    Key("copy", "k", "k", "Copy", "path, command, values, error: to the clipboard", ("app",), "screen.copy"),
    Key("suspend", "ctrl+z", "Ctrl-Z", "Suspend the screen", "until fg; training goes on", ("app",), "app.suspend_process"),
    Key("themes", "T", "T", "Colours", "dark, light, for the colour-blind, high contrast", ("app",), "app.themes"),
    Key("help", "question_mark", "?", "Help", "this panel", ("app",), "app.help", "help"),
    Key("quit", "q,ctrl+c", "q", "Quit", "asks first while a run trains", ("app",), "app.ask_quit", "quit"),
)  # fmt: skip


# What a footer shows first, where that is not the table's order: the ids of keys.
FIRST = {
    "form": ("start", "background", "queue-add", "recipes", "dry-run", "recipe-save", "find-lr", "filter", "runs"),
    "over": ("new", "resume", "runs"),
    "empty": ("new",),
    "overlay": ("overlay-leave",),
    "runs": ("open", "new", "resume", "mark", "overlay", "runs-filter", "sort", "fork"),
    "search": ("trial-open", "search-on", "search-stop", "search-best", "search-overlay", "search-next"),
    "queue": ("job-open", "queue-start", "job-stop", "job-pause", "new", "runs"),
}

# What the palette calls the first of several keys that share a label, by id: it does that alone.
ALONE = {
    "metric-next": "Next metric", "smooth-more": "More smoothing", "zoom-in": "Zoom in", "pan-left": "Pan left",
    "cursor-left": "Cursor left", "larger": "Larger pane", "job-earlier": "Earlier", "search-next": "Next search",
}  # fmt: skip


def keys(*screens: str) -> tuple[Key, ...]:
    """The keys of these screens, in the table's order."""
    return tuple(key for key in KEYS if any(screen in key.screens for screen in screens))


def actions(*screens: str) -> tuple[Key, ...]:
    """What the palette offers on these screens: each action that a key has, once."""
    found: dict[str, Key] = {}
    for key in sorted(keys(*screens), key=lambda key: not key.palette):
        found.setdefault(key.action, key)
    found.pop("app.command_palette", None)  # it is open
    return tuple(found.values())


def bindings(*screens: str) -> list[Binding]:
    """Textual's bindings for these screens; ids make them remappable."""
    return [
        Binding(
            key.key,
            key.action,
            key.label,
            show=False,
            id=key.id,
            tooltip=key.help,
            key_display=key.shown,
            priority=key.id == "suspend",  # also over a question
        )
        for key in keys(*screens)
    ]


def footer(screen: str, width: int) -> list[tuple[str, str]]:
    """(key, word) pairs for one line of `width` columns; help and quit always fit, the others from the left on.

    In a text field ("field") those two are letters that can be typed.
    """
    first = FIRST.get(screen, ())
    found = [key for key in keys(screen) if key.hint]
    found.sort(key=lambda key: first.index(key.id) if key.id in first else len(first))
    pairs = [(key.shown, key.hint) for key in found]
    ends = [] if screen == "field" else [(key.shown, key.hint) for key in keys("app") if key.hint]
    room = width - 1 - sum(len(key) + len(word) + 3 for key, word in ends)
    chosen = []
    for key, word in pairs:
        room -= len(key) + len(word) + 3
        if room < 0:
            break
        chosen.append((key, word))
    return chosen + ends

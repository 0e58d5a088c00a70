"""The data of a recipe as the lines of a script, up to the tensors `x_train`, `y_train`, `x_val` and `y_val`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy
import torch

from engine import catalog
from engine.data.samples import Prepared, Samples, from_arrays
from engine.data.sources.csv_files import Format
from engine.export.code import Imports, body_of, call, literal, unsaid
from engine.recipe import Recipe

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")
GENERATED = ("line", "sine", "moons", "spirals")

STANDARDIZED = '''
def standardized(train, *others, axes):
    """Each feature with mean 0 and deviation 1 over the training part; a constant one becomes 0."""
    mean, std = train.mean(axes, numpy.float64, keepdims=True), train.std(axes, numpy.float64, keepdims=True)
    high = train.max(axes, keepdims=True)
    constant = high == train.min(axes, keepdims=True)
    mean, std = numpy.where(constant, high, mean), numpy.where(constant | (std == 0), 1, std)
    return [(part - mean) / std for part in (train, *others)]
'''


def data_lines(recipe: Recipe, data: Prepared, imports: Imports) -> list[str]:
    """The lines. RecipeError for data that have no plain words."""
    loading = recipe.loading
    if not isinstance(data.train, tuple):
        raise unsaid("data.name", recipe.data.name, "only data that are held in memory can be written out")
    if loading.augment:
        raise unsaid("data.augment", loading.augment, "each change is a function of (seed, epoch, index)")
    lines = list(_arrays(recipe, data, imports))
    same = data.task == "reconstruction"
    parts = ["x"] if same else ["x", "y"]
    names = ["train"] if data.validation is None else ["train", "val"]
    if data.validation is None:
        lines += [f"{part}_train = {part}" for part in parts]
    else:
        lines += _split(recipe)
        lines += [f"{part}_train, {part}_val = {part}[training], {part}[validation]" for part in parts]
    scaled = [*(["x"] if "mean" in data.normalization else []), *(["y"] if "target_mean" in data.normalization else [])]
    for part in scaled:
        shape = len((data.train[0] if part == "x" else data.train[1]).shape)
        axis = 1 if shape > 3 else shape - 1
        axes = tuple(i for i in range(shape) if i != axis)
        targets = ", ".join(f"{part}_{name}" for name in names) + ("," if len(names) == 1 else "")
        lines.append(f"{targets} = standardized({targets.rstrip(',')}, axes={axes})")
    dtypes = {"x": data.train[0].dtype, "y": data.train[1].dtype}
    for part in parts:
        made = [f"torch.tensor({part}_{name}, dtype={dtypes[part]})" for name in names]
        lines.append(f"{', '.join(f'{part}_{name}' for name in names)} = {', '.join(made)}")
    if same:
        targets = ", ".join(f"x_{name}" for name in names)
        lines.append(f"{targets.replace('x_', 'y_')} = {targets}  # the inputs themselves are the targets")
    return lines


def _split(recipe: Recipe) -> Iterable[str]:
    loading = recipe.loading
    yield "# Held back for validation: a part of a permutation that depends on a seed of its own alone"
    yield f"indices = order(len(x), {loading.split_seed}, epoch=0).numpy()"
    if loading.fold is None:
        yield f"held = round(len(x) * {loading.validation!r})"
        yield "training, validation = indices[held:], indices[:held]"
    else:
        fold, folds = loading.fold, loading.folds
        yield f"first, last = {fold - 1} * len(x) // {folds}, {fold} * len(x) // {folds}"
        yield "training, validation = numpy.concatenate([indices[:first], indices[last:]]), indices[first:last]"


def _arrays(recipe: Recipe, data: Prepared, imports: Imports) -> Iterable[str]:
    """The lines that make the arrays `x` and `y`."""
    name, given = recipe.data.name, recipe.data.arguments
    entry = catalog.find("data", name)
    column = "[:, None]" if data.task == "regression" else ""
    if name in BUNDLED:
        imports.add(f"from sklearn.datasets import load_{name}")
        yield f"{name} = load_{name}()"
        inputs = "digits.data / 16" if name == "digits" else f"{name}.data"
        if given.get("images"):
            inputs = f"({inputs}).reshape(-1, 1, 8, 8)"
        yield f"x, y = {inputs}, {name}.target{column}"
    elif name in GENERATED:
        arguments = {item.key: item.default for item in entry.fields} | dict(given)
        yield f"{', '.join(arguments)} = {', '.join(map(literal, arguments.values()))}"
        body, samples = body_of(entry.target)
        yield from body
        yield f"x, y = {samples['inputs']}, {samples['targets']}{column}"
    elif name == "csv":
        yield from _table(recipe, data, imports)
    elif name == "npz" and not given.get("validation_inputs"):
        yield f"archive = numpy.load({given['path']!r})"
        yield f"x, y = archive[{given.get('inputs', 'x')!r}], archive[{given.get('targets', 'y')!r}]"
        yield from _converted(recipe, entry.build(given))
    elif ":" in name:
        torch.manual_seed(recipe.seed)
        loaded = entry.build(given)
        made = call(entry, imports.own(name), given)
        plain = isinstance(loaded, tuple) and len(loaded) == 2 and all(hasattr(part, "dtype") for part in loaded)
        if entry.wants or not plain:
            raise unsaid("data.name", name, "of own data only a pair of arrays or tensors (inputs, targets) can be")
        yield "torch.manual_seed(SEED)"
        yield f"x, y = map(numpy.asarray, {made})"
        yield from _converted(recipe, from_arrays(*loaded))
    else:
        known = ", ".join([*BUNDLED, *GENERATED, "csv", "npz"])
        raise unsaid("data.name", name, f"there are words for {known} and own functions that return arrays")


def _converted(recipe: Recipe, samples: Samples) -> Iterable[str]:
    """The lines that turn `x` and `y` as they were read into floats, classes and columns."""
    x, y = numpy.asarray(samples.inputs), numpy.asarray(samples.targets)
    if samples.task == "text" or samples.validation is not None or recipe.loading.reconstruct:
        raise unsaid("data.name", recipe.data.name, "there are no words for text and for reconstruction from own arrays")
    if x.ndim == 1:
        yield "x = x[:, None]"
    if x.dtype == numpy.uint8:
        yield "x = x / numpy.float32(255)  # pixels"
    elif x.dtype == numpy.bool_:
        yield "x = x.astype(numpy.float32)"
    if samples.task == "regression":
        yield f"y = y.astype(numpy.float64){'[:, None]' if y.ndim == 1 else ''}"
    else:
        yield "y = numpy.unique(y, return_inverse=True)[1].reshape(-1)  # classes as numbers from 0 on"


def _table(recipe: Recipe, data: Prepared, imports: Imports) -> Iterable[str]:
    import pandas

    given = recipe.data.arguments
    path, target = given["path"], given["target"]
    if given.get("validation_path"):
        raise unsaid("data.validation_path", given["validation_path"], "a second table is read together with the first")
    options = Format.of(given).options()
    table = pandas.read_csv(path, **options)
    spaced = any(name != name.strip() for name in table.columns)
    table.columns = table.columns.str.strip()
    texts = [name for name in data.features if name not in table.columns]
    if texts:
        raise unsaid("data.columns", texts, "columns of texts, dates or missing numbers become several inputs; name others")
    if table[[*data.features, target]].isna().any(axis=None):
        raise unsaid("data.path", path, "it has missing values")
    imports.add("import pandas")
    yield f"table = pandas.read_csv({path!r}, {', '.join(f'{key}={literal(value)}' for key, value in options.items())})"
    if spaced:
        yield "table.columns = table.columns.str.strip()"
    yield f"x = numpy.stack([table[name].to_numpy(float) for name in {list(data.features)!r}], axis=1)"
    if data.task == "regression":
        yield f"y = table[{target!r}].to_numpy(float)[:, None]"
    else:
        values = f"table[{target!r}]" + ("" if table[target].dtype.kind in "iuf" else ".astype(str)")
        text = "" if table[target].dtype.kind in "iuf" else "str"
        yield f"y = numpy.unique({values}.to_numpy({text}), return_inverse=True)[1]  # classes as numbers from 0 on"

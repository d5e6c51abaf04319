"""The import rule, read from the source: downwards only, no circle, light at the top.

Truth: the order of layers that the architecture states.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "jaxdiff"
# Each may import its own layer and those above it in this list.
LAYERS = [
    {"typing", "arrays", "keys"},
    {"schedules", "grids", "gaussian", "parametrization", "sde", "divergence", "latent"},
    {"exact", "denoiser", "reverse", "guidance", "losses"},
    {"samplers", "likelihood", "trajectory"},
    {"training", "interop", "study"},
    {"config", "plots", "cli", "__main__"},
]
# Beside the tower: they know arrays, not diffusion; imported from `training` upwards.
SIDE = {"models", "hubness", "metrics", "data"}
HOME = {
    "diffrax": {
        f"samplers/{name}.py" for name in ("adaptive", "brownian", "integrators", "solution")
    },
    "equinox": {"samplers/brownian.py"},
    "lineax": {"samplers/adaptive.py"},
    "optax": {"training/", "study.py"},
    "orbax": {"training/", "study.py"},
    "flax": {"models/"},
    "torch": {"interop/weights.py"},
    "matplotlib": {"plots/"},
    "sklearn": {"data/"},
    "PIL": {"data/"},
    "tensorboardX": {"training/tensorboard.py"},
    "tokenizers": {"data/text/tokens.py"},
    "safetensors": {"interop/"},
}


def layer(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def imports(path: pathlib.Path) -> set[str]:
    """The dotted names a file imports, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(ROOT.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])


@each_file
def test_imports_run_downwards(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        if not name.startswith("jaxdiff."):
            continue
        part = name.split(".")[1]
        if part == own:
            continue
        if own in SIDE:
            assert part in LAYERS[0], f"{own} is a side tower and imports {name}"
        elif part in SIDE:
            assert layer(own) >= layer("training"), f"{own} stands below the side tower {part}"
        else:
            assert layer(part) <= layer(own), f"{own} imports upwards: {name}"


@each_file
def test_libraries_stay_where_they_belong(path):
    where = str(path.relative_to(ROOT))
    for name in imports(path):
        homes = HOME.get(name.split(".")[0])
        assert not homes or any(where.startswith(home) for home in homes), f"{where}: {name}"


def test_no_circles_between_modules():
    """Depth-first through module-level imports of the package."""
    modules = {f"jaxdiff.{'.'.join(f.relative_to(ROOT).with_suffix('').parts)}": f for f in FILES}
    modules = {name.removesuffix(".__init__"): f for name, f in modules.items()}

    def top_level(path):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in modules else node.module

    graph = {
        name: {i for i in top_level(f) if i in modules and i != name} for name, f in modules.items()
    }
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, f"circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in graph[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_importing_is_light():
    """`import jaxdiff` loads none of the heavy libraries."""
    code = (
        "import sys, jaxdiff; "
        "heavy = {'diffrax', 'equinox', 'orbax', 'matplotlib', 'sklearn', 'optax', 'flax',"
        " 'torch', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(out.stdout.strip()))
    assert not loaded - {"scipy"}, f"import jaxdiff loads {loaded}"


def test_public_names_exist():
    """`__all__` of every module names what is there, once."""
    import importlib

    for f in FILES:
        parts = f.relative_to(ROOT.parent).with_suffix("").parts
        if parts[-1] == "__main__":
            continue
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        names = getattr(module, "__all__", [])
        assert len(names) == len(set(names)), f"{f}: a name stands twice in __all__"
        for name in names:
            assert hasattr(module, name), f"{f}: __all__ names {name}, which does not exist"

"""The frame: what the README, the package's files and its rooms promise."""

import ast
import functools
import graphlib
import importlib
import importlib.metadata
import importlib.resources
import inspect
import itertools
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import daily
import matplotlib as mpl
import pytest

import fedjax_rl as frl

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = pathlib.Path(frl.__file__).parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Which room may import from which, besides itself. What is absent knows no other room.
ROOMS = {
    "federation": {"streams", "rounding", "backend", "turns", "hosts"},
    "learners": {"streams", "envs", "networks", "lapack", "rounding", "backend"},
    "rollouts": {"streams", "envs", "learners", "backend", "turns"},
    "envs": {"streams", "lapack", "backend", "turns"},
    "networks": {"lapack", "backend"},
    "backend": set(),
    "lapack": {"turns"},
    "rounding": set(),
    "streams": set(),
    "memory": set(),
    "turns": {"backend"},
    "hosts": set(),
    "analysis": set(),
    "plotting": {"analysis", "saving", "envs"},
    "saving": {"federation", "streams", "sweeps", "hosts"},  # of sweeps, types
    "sweeps": {"federation", "streams", "saving", "memory", "backend", "turns", "hosts"},
    "presets": {"algorithms", "envs", "federation"},
    "algorithms": {
        *("federation", "learners", "rollouts", "envs", "networks"),
        *("streams", "memory", "rounding", "backend"),
    },
}
# Messages about names and values are worded alike everywhere, and values told apart alike: what
# these know, which every room may import.
WORDING = {"names": set(), "fields": set(), "identity": set(), "remembered": {"backend"}}
JOINERS = {"studies", "cli", "__init__", "__main__"}
NAMELESS = {"federation", "sweeps", "saving", "analysis", "plotting"}


def block(marker):
    """The one command under a marker of the README."""
    return re.search(rf"<!-- {marker} -->\n```bash\n(.+?)\n```", README, re.DOTALL)[1]


def python_blocks():
    return re.findall(r"```python\n(.+?)```", README, re.DOTALL)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def trees():
    return [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


def imports(tree):
    """Rooms of this package that a module imports, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fedjax_rl" and len(parts) > 1 and parts[1] not in WORDING:
                yield parts[1]


def test_imports_run_one_way():
    wrong = []
    for path, tree in trees():
        room = room_of(path)
        if room in JOINERS:
            allowed = None if room in ("cli", "__main__") else {*ROOMS, "studies"}
        elif room in WORDING:
            allowed = WORDING[room]
        else:
            assert room in ROOMS, f"{room} is a new room: say in ROOMS what it may import"
            allowed = ROOMS[room] | {room}
        for target in imports(tree):
            if allowed is not None and target not in allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {target}")
    assert not wrong


def test_modules_of_a_room_import_one_way():
    """Inside a room too, at the top of a module or in a function; types alone do not count."""
    modules = {}
    for path, tree in trees():
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = tree
    ahead = {}
    for name, tree in modules.items():
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        own = ahead[name] = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or id(node) in for_types:
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = full if full in modules else node.module
                if target in modules and target.split(".")[1:2] == name.split(".")[1:2]:
                    own.add(target)
    order = graphlib.TopologicalSorter(ahead).static_order()
    assert set(order) == set(modules)


def test_the_engine_knows_no_algorithm_by_name():
    from fedjax_rl.algorithms import ALGORITHMS

    names = set(ALGORITHMS) | {"FedQ"}
    wrong = []
    for path, tree in trees():
        if room_of(path) not in NAMELESS:
            continue
        for node in ast.walk(tree):
            word = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value"}.get(type(node))
            if word and isinstance(getattr(node, word), str) and getattr(node, word) in names:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {getattr(node, word)}")
    assert not wrong


def public_modules():
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "fedjax_rl.")]
    return ["fedjax_rl", *(n for n in names if not n.endswith("__main__"))]


@pytest.mark.parametrize("name", public_modules())
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module), f"{name} has no docstring"
    listed = list(getattr(module, "__all__", ()))
    assert len(listed) == len(set(listed))  # the linter sorts them
    for public in listed:
        value = getattr(module, public)
        if callable(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_every_public_function_has_a_docstring():
    bare = []

    def look(path, body):
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                bare.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}")
            if isinstance(node, ast.ClassDef):
                look(path, node.body)

    for path, tree in trees():
        look(path, tree.body)
    assert not bare


def test_version_is_one():
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
    try:
        found = importlib.metadata.version("fedjax_rl")
    except importlib.metadata.PackageNotFoundError:
        return
    assert found == version


def test_data_ships():
    data = importlib.resources.files("fedjax_rl") / "envs" / "data"
    assert any(entry.name.endswith(".json") for entry in data.iterdir())
    here = {p.name for p in (ROOT / "fedjax_rl" / "envs" / "data").iterdir()}
    assert {entry.name for entry in data.iterdir()} == here
    frl.envs.paper_mdp()


def test_dependencies_are_what_is_imported():
    """Every import outside the standard library is declared, and has a floor and no cap."""
    declared = {}
    for entry in PROJECT["dependencies"]:
        name, _, rest = entry.partition(">=")
        assert rest, f"{entry} has no floor"
        assert "<" not in rest, f"{entry} has a cap"
        assert "==" not in rest, f"{entry} is pinned"
        declared[name.replace("-", "_")] = rest
    modules = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    known = {"orbax": "orbax_checkpoint", "PIL": "pillow"}
    # pandas is statsmodels' and xarray's own dependency.
    outside = modules - set(sys.stdlib_module_names) - {"fedjax_rl", "jaxlib", "pandas"}
    assert {known.get(m, m) for m in outside} <= set(declared)


def test_readme_python_runs(tmp_path, monkeypatch):
    """The blocks of the README run in their order, smaller."""
    monkeypatch.chdir(tmp_path)
    lines, gradient = python_blocks()
    for was, smaller in (
        ("[1, 2, 4, 8, 16]", "[1, 2, 4]"),
        ("range(6)", "range(2)"),
        ("0.005 * ", "0.05 * "),
        ("100_000", "10_000"),
        ("num_steps=2_000", "num_steps=200"),
        ("num_agents=16", "num_agents=2"),
    ):
        assert was in lines + gradient
        lines, gradient = lines.replace(was, smaller), gradient.replace(was, smaller)
    names = {}
    with mpl.rc_context({"backend": "agg"}):
        for code in (lines, gradient):
            exec(code, names)
    assert names["result"].sizes["num_agents"] == 3
    assert (tmp_path / "speedup.png").stat().st_size > 5_000
    assert abs(float(names["slope"])) > 0


@functools.cache
def command_line(*arguments):
    """Runs the command in a process of its own, as the entry point does."""
    module, function = PROJECT["scripts"]["fedjax-rl"].split(":")
    code = f"import sys, {module}; sys.argv[0] = 'fedjax-rl'; sys.exit({module}.{function}())"
    environment = {
        **os.environ,
        "COLUMNS": "160",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_commands_exist():
    """Commands and options that the README names stand in the help."""
    calls = re.findall(r"fedjax-rl ([a-z]+)([^`\n|]*)", README)
    named = {command for command, _ in calls}
    assert named >= {"list", "run", "sweep", "reproduce", "resume", "doctor"}
    overview = command_line("--help")
    for command in sorted(named):
        assert re.search(rf"\b{command}\b", overview), f"the help has no {command}"
    for command, rest in calls:
        # What an algorithm or a study is named decides about its options.
        words = itertools.takewhile(lambda word: not word.startswith("-"), rest.split())
        words = [word for word in words if not word.isupper()]
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in command_line(command, *words, "--help")
    scales = command_line("reproduce", "--help")
    assert all(scale in scales for scale in ("smoke", "quick", "paper"))
    assert "linear-speedup" in command_line("list")


def test_ci_runs_the_readme():
    """The script reads the test command from the README instead of repeating it."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert "pip install" not in text
    extraction = re.search(r"command=\$\((awk .+ README\.md)\)", text)[1]
    found = subprocess.run(
        ["bash", "-c", extraction], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()
    assert found == block("second")
    assert '-e ".[test]"' in found
    assert found.endswith("pytest")
    assert "fedjax-rl reproduce linear-speedup --scale smoke" in block("first")


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README + (ROOT / "CONTRIBUTING.md").read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_what_is_run_every_day_is_there():
    written = "".join(path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py"))
    assert [name for name in daily.DAILY if f"def {name}(" not in written] == []

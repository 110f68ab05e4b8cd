"""Notebooks: both forms agree, and they run from the first cell to the last at small size."""

import importlib.util
import json
import os
import pathlib
import subprocess

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What is a module alone, such as the algorithm of a notebook, has no second form.
SOURCES = sorted(path.with_suffix(".py") for path in (ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"image/png", "image/gif"}
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def first_cell(source):
    return next(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code")


@each_notebook
def test_both_forms_agree(source):
    one, other = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in one.cells] == [
        (c.cell_type, c.source) for c in other.cells
    ]


@each_notebook
def test_it_is_committed_with_outputs_and_small(source):
    path = source.with_suffix(".ipynb")
    assert path.stat().st_size < 400_000
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    pictures = [output for output in outputs if PICTURES & set(output.get("data", {}))]
    assert len(pictures) >= 2


@each_notebook
def test_it_opens_in_colab(source):
    where = f"fedjax-rl/fedjax_rl/blob/main/notebooks/{source.stem}.ipynb"
    assert f"https://colab.research.google.com/github/{where}" in source.read_text()


@each_notebook
@pytest.mark.thorough
def test_it_runs(source, monkeypatch):
    monkeypatch.setenv("FEDJAX_RL_SMALL", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    # What conftest sets is for the tests' own process: many devices, and no pictures.
    flags = os.environ["XLA_FLAGS"].split()
    kept = [flag for flag in flags if "device_count" not in flag]
    monkeypatch.setenv("XLA_FLAGS", " ".join(kept))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # found, so that nothing is installed
    notebook = jupytext.read(source)
    client = nbclient.NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert any("devices:" in output.get("text", "") for output in outputs)
    assert sum(bool(PICTURES & set(output.get("data", {}))) for output in outputs) >= 2


@pytest.mark.parametrize(
    ("present", "extras"),
    [((), ""), (("jax_cuda12_plugin",), "cuda12"), (("jax_cuda13_plugin", "libtpu"), "cuda13,tpu")],
    ids=["cpu", "cuda", "both"],
)
@each_notebook
def test_the_first_cell_moves_jax_with_its_plugin(source, present, extras, monkeypatch):
    """What pip is asked for: a jax without its plugin would lose the accelerator."""
    asked = []
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: name in present or None)
        patched.setattr(subprocess, "run", lambda command, check: asked.append((command, check)))
        exec(first_cell(source).split("\nimport jax\n")[0].split("\nimport pathlib")[0], {})
    ((command, check),) = asked
    assert check
    assert command[1:5] == ["-m", "pip", "install", "--quiet"]
    assert command[5].startswith("fedjax_rl @ git+https://")
    assert command[6] == f"jax[{extras}]"


@each_notebook
def test_the_first_cell_is_short_and_installs_nothing_that_is_there(source, monkeypatch):
    assert len(first_cell(source).splitlines()) <= 35
    run = subprocess.run

    def checked(command, **options):
        assert "pip" not in command
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", checked)
    exec(first_cell(source), {})

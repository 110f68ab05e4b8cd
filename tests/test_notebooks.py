"""Notebooks: both forms agree, and they run from the first cell to the last at small size."""

import contextlib
import importlib.metadata
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
    assert path.stat().st_size < 300_000
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3


@each_notebook
def test_it_opens_in_colab(source):
    where = f"fedjax-rl/fedjax_rl/blob/main/notebooks/{source.stem}.ipynb"
    assert f"https://colab.research.google.com/github/{where}" in source.read_text()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.thorough] if path.stem != "linear_speedup" else [],
        )
        for path in SOURCES
    ],
)
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
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert any("devices:" in output.get("text", "") for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.parametrize(
    ("present", "refused", "expected"),
    [
        ({}, 0, [[]]),
        ({"jax": "0.7.2", "jaxlib": "0.7.2"}, 0, [[]]),
        (
            {"jax": "0.7.2", "jaxlib": "0.7.2", "jax-cuda12-plugin": "0.7.2"},
            0,
            [["jax==0.7.2", "jaxlib==0.7.2", "jax-cuda12-plugin==0.7.2"]],
        ),
        (
            {"jax": "0.4.1", "jaxlib": "0.4.1", "libtpu": "0.0.9"},
            1,
            [["jax==0.4.1", "jaxlib==0.4.1", "libtpu==0.0.9"], ["jax[tpu]"]],
        ),
    ],
    ids=["bare", "cpu", "cuda", "old tpu"],
)
@each_notebook
def test_the_first_cell_carries_the_plugin(source, present, refused, expected, monkeypatch):
    """What pip is asked for on machines with and without an accelerator."""
    asked = []

    def version(name):
        if name in present:
            return present[name]
        raise importlib.metadata.PackageNotFoundError(name)

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1 if len(asked) <= refused else 0)

    with monkeypatch.context() as patched, contextlib.redirect_stdout(None):
        patched.setattr(importlib.metadata, "version", version)
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        patched.setattr(subprocess, "run", run)
        install = first_cell(source).split("\nimport os\n")[0]
        exec(install, {})
    assert [command[6:] for command in asked] == expected
    assert all("fedjax_rl @ git+https://" in command[5] for command in asked)


@each_notebook
def test_the_first_cell_installs_nothing_that_is_there(source, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("installed again"))
    exec(first_cell(source), {})

"""The page for a browser: its numbers, its refusals, and what a browser makes of it."""

import importlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from fedjax_rl import cli, plotting
from fedjax_rl.plotting import browse
from fedjax_rl.saving import results

pytest.importorskip("plotly")
TIMES = np.arange(1, 21) * 50
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def made(seed=0, counts=(1, 4), seeds=4, unit="steps of one agent", name="error_server"):
    """A sweep over N and K with random numbers."""
    rng = np.random.default_rng(seed)
    dims = ("num_agents", "sync_period", "seed", "time")
    values = np.exp(rng.normal(size=(len(counts), 2, seeds, len(TIMES))))
    return xr.Dataset(
        {
            name: (dims, values),
            "gap": (dims, -values),
            "diverged": (dims[:-1], np.zeros(values.shape[:-1], bool)),
            "env_steps": (dims[:-1], np.full(values.shape[:-1], 1200)),
        },
        {
            "num_agents": list(counts),
            "sync_period": [1, 100],
            "seed": range(seeds),
            "time": ("time", TIMES, {"long_name": unit}),
        },
        {"configuration": json.dumps({"learning_rate": 0.1, "name": "</script><b>x</b>"})},
    )


def test_means_and_intervals_are_those_of_numpy():
    result = made()
    found = browse.content({"": result})
    assert [(axis["name"], axis["values"]) for axis in found["axes"]] == [
        ("num_agents", ["1", "4"]),
        ("sync_period", ["1", "100"]),
    ]
    assert found["axes"][0]["tags"] == ["N = 1", "N = 4"]
    (cell,) = (cell for cell in found["cells"] if cell["at"] == [1, 0])
    own = result["error_server"].sel(num_agents=4, sync_period=1).values
    curve = cell["curves"]["error_server"]
    np.testing.assert_allclose(curve["mean"], own.mean(0))
    low, high = stats.t.interval(0.95, 3, own.mean(0), stats.sem(own))
    np.testing.assert_allclose([curve["low"], curve["high"]], [low, high])
    assert (cell["runs"], cell["costs"][0]) == (4, 1200)


def test_two_runs_have_no_interval_and_what_broke_is_counted():
    two = made(seeds=2)
    assert browse.content({"": two})["cells"][0]["curves"]["gap"]["low"] is None
    four = made()
    four["gap"][0, 0, 1, 7:] = np.nan
    curve = browse.content({"": four})["cells"][0]["curves"]["gap"]
    assert (curve["runs"], curve["lost"]) == (3, 1)
    np.testing.assert_allclose(curve["mean"], four["gap"][0, 0, [0, 2, 3]].mean("seed"))


def test_agents_are_averaged_and_long_curves_thinned():
    values = np.random.default_rng(0).normal(size=(3, 2, 1000))
    dims = ("seed", "agent", "time")
    result = xr.Dataset({"own": (dims, values)}, {"time": range(1000), "seed": range(3)})
    curve = browse.content({"": result})["cells"][0]["curves"]["own"]
    assert len(curve["mean"]) == browse.RECORDS
    np.testing.assert_allclose(curve["mean"][[0, -1]], values.mean((0, 1))[[0, -1]])


def test_results_side_by_side_share_axes():
    one = made().sel(sync_period=1)  # a run of its own
    one.attrs["configuration"] = json.dumps({"learning_rate": 0.3})
    many = made(1, counts=(4, 16)).assign_coords(learning_rate=0.1)
    found = browse.content({"a": one, "b": many})
    known = {axis["name"]: axis["values"] for axis in found["axes"]}
    assert known["directory"] == ["a", "b"]
    assert known["num_agents"] == ["1", "4", "16"]
    assert known["sync_period"] == ["1", "100"]
    assert len(found["cells"]) == 2 + 4


def test_results_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match=r"count time unalike: a counts steps .* b counts rounds"):
        plotting.browsable({"a": made(), "b": made(unit="rounds of one agent")})
    other = made(name="return").drop_vars("gap")
    with pytest.raises(ValueError, match="no metric in common: a error_server, gap; b return"):
        plotting.browsable({"a": made(), "b": other})
    with pytest.raises(ValueError, match="results is empty"):
        plotting.browsable({})
    with pytest.raises(ValueError, match="nothing recorded over time"):
        plotting.browsable(made().isel(time=0))


def test_a_page_holds_all_and_fetches_nothing():
    page = plotting.browsable({"<i>a</i>": made(), "@DATA@": made(1)}, title="<script>")
    assert "default-src 'none'" in page
    head = page.partition("<script")[0]
    assert "<title>&lt;script&gt;</title>" in head
    data = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    assert "</" not in data
    assert json.loads(data)["configurations"][0]["values"]["name"] == "</script><b>x</b>"
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)


def test_without_plotly_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    load = importlib.import_module

    def missing(name, *rest):
        if name.startswith("plotly"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *rest)

    results.save(tmp_path, made())
    monkeypatch.setattr(importlib, "import_module", missing)
    assert cli.main(["view", str(tmp_path)]) == 2
    assert "pages for a browser need plotly: pip install" in capsys.readouterr().err
    assert not (tmp_path / "view.html").exists()


def test_the_command_writes_one_file_or_says_why_not(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    results.save(one, made())
    results.save(two, made(1, unit="rounds of one agent"))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text('{"made_by": "fedjax_rl"}')
    out = tmp_path / "page.html"
    for words, said in (
        (["nowhere"], "directories has nowhere, which is not there"),
        ([str(tmp_path)], f"holds no result; allowed: {one}, {two}"),
        ([str(tmp_path / "begun")], "holds no result yet"),
        ([str(one), str(two)], "count time unalike"),
        ([str(one), "--out", "page.png"], "--out is page.png; allowed: a name that ends in .html"),
    ):
        line = ["view", *words, *([] if "--out" in words else ["--out", str(out)])]
        assert cli.main(line) == 2
        printed = capsys.readouterr().err
        assert said in printed
        assert printed.count("\n") == 1
    assert not out.exists()
    assert cli.main(["view", str(one)]) == 0
    assert (one / "view.html").read_text().startswith("<!doctype html>")
    assert "needs no network" in capsys.readouterr().out


STUDY = {
    "study": "tiny",
    "targets": [
        {"id": "A", "figure": "f", "quantity": "a slope", "published": -1, "measured": -1.02}
        | {"low": -1.1, "high": -0.9, "runs": 10, "band": [-1.2, -0.8], "verdict": "reproduced"},
        {"id": "B", "figure": "f", "quantity": "two", "published": [1, None], "measured": [2, 3]}
        | {"low": [None, 2.5], "high": [None, 3.5], "runs": [10, 4], "band": [[0, 1], [None, 9]]}
        | {"verdict": "not reproduced", "verdicts": ["not reproduced", "reproduced"]},
    ],
}


def browsed(path, address="", width=1200):
    """What a browser makes of a page, as text, once its scripts have run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},900"]
    command += ["--virtual-time-budget=10000", "--enable-logging=stderr", f"file://{path}{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said
    page = re.sub(r"<(script|style)\b.*?</\1>", "", done.stdout, flags=re.DOTALL)
    assert 'data-ready="yes"' in page
    return page


@pytest.mark.thorough
def test_a_browser_draws_what_is_chosen(tmp_path):
    path = tmp_path / "page.html"
    page = plotting.browsable({"runs/a": made(), "runs/<b>": made(1)})
    # Also what a pointer sees: words at the fifth record of the first mean.
    look = "const plot = document.querySelector('.plot'); "
    look += "const at = plot.data.findIndex((own) => own.customdata); "
    look += "Plotly.Fx.hover(plot, [{ curveNumber: at, pointNumber: 4 }]); "
    look += "document.body.dataset.hover = plot.querySelector('.hoverlayer').textContent;"
    path.write_text(page.replace("</body>", f"<script>{look}</script></body>"))
    whole = browsed(path)
    assert whole.count('class="plot js-plotly-plot"') == 1
    assert "Means of 4 runs; 95 % Student t intervals" in whole
    result = made()
    own = result["error_server"][0, 0]
    low, high = stats.t.interval(0.95, 3, own.mean("seed"), stats.sem(own))
    last = [f"{x:.4g}" for x in (own.mean("seed").values[-1], low[-1], high[-1])]
    assert f"{last[0]} [{last[1]}, {last[2]}]" in whole
    hover = re.search(r'data-hover="([^"]*)"', whole)[1]
    assert f"{own.mean('seed').values[4]:.4g} [" in hover
    assert "4 runs" in hover
    # By the address, as the choices themselves write it.
    panels = browsed(path, "#panels=directory&metric=gap&num_agents=1&bands=no")
    assert panels.count('class="plot js-plotly-plot"') == 2
    # Of one N, in both directories, both K.
    assert len(re.findall(r"<tr><td", panels.partition("Configuration")[0])) == 4
    assert "runs/&lt;b&gt;" in panels
    assert "svg" in browsed(path, "#y=log", width=500)


@pytest.mark.thorough
def test_a_browser_shows_a_study(tmp_path):
    home = tmp_path / "tiny"
    home.mkdir()
    results.write_json(home / "summary.json", STUDY)
    plotting.save(plotting.curves(made()), home / "slope")
    assert cli.main(["view", str(home)]) == 0
    page = browsed(home / "view.html")
    assert "2 claims: 1 reproduced, 1 not reproduced" in page
    assert "-1.02 [-1.1, -0.9]" in page
    assert "Where what was measured lies in its band" in page
    assert 'alt="slope"' in page

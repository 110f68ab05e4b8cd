# ruff: noqa: RUF001 -- the labels say α and ² as the papers do
import os

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import envs, plotting
from fedjax_rl.analysis import (
    DriftLaw,
    loglog,
    ols,
    speedup_fit,
    time_to_threshold,
    windowed,
)
from fedjax_rl.plotting import curve_page

pytestmark = pytest.mark.filterwarnings("error")

TIMES = np.arange(1, 121) * 100
AGENTS, PERIODS, SEEDS = [1, 2, 4, 8], [1, 1000], 4


def grid(rate=0.0015):
    """Errors that fall exponentially, N times as fast with N agents, with noise per seed."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (len(AGENTS), len(PERIODS), SEEDS, len(TIMES)))
    agents = np.array(AGENTS)[:, None, None, None]
    error = 13.7 * np.exp(-rate * agents * TIMES + noise) + 0.004 * np.exp(noise)
    dims = ("num_agents", "sync_period", "seed", "time")
    return xr.Dataset(
        {
            "error_server": (dims, error),
            "error_local_mean": (dims, 1.5 * error),
            "bytes_up": (dims[:-1], np.full(error.shape[:-1], 4096)),
            "diverged": (dims[:-1], np.zeros(error.shape[:-1], bool)),
        },
        {
            "num_agents": AGENTS,
            "sync_period": PERIODS,
            "seed": range(SEEDS),
            "time": TIMES,
            "learning_rate": ("num_agents", 0.002 * np.array(AGENTS)),
        },
    )


def flat(result):
    """The same runs as a list of cells; a single agent has no sync period."""
    cells = result.stack(cell=("num_agents", "sync_period", "seed")).reset_index("cell")
    cells = cells.transpose("cell", ...)
    period = cells.sync_period.values.astype(float)
    once = (cells.num_agents.values > 1) | (period == 1)
    period[cells.num_agents.values == 1] = np.nan
    return cells.assign_coords(sync_period=("cell", period)).isel(cell=once)


def by_epsilon():
    return grid().rename(sync_period="epsilon").assign_coords(epsilon=[0.0, 1.0]).isel(num_agents=0)


def windows():
    rng = np.random.default_rng(1)
    period, alpha = (x.ravel() for x in np.meshgrid(np.arange(20, 200, 10), [0.2, 0.4, 0.6]))
    final = 0.5 * (period - 1.0) ** 0.5 * alpha**1.4 * np.exp(rng.normal(0, 0.1, period.size))
    return final, period, alpha


def draw_coefficients(**options):
    fits = windowed(*windows(), 64)
    published = {50: {"sync_period": 1.24, "r_squared": 0.96}}
    return plotting.coefficients(fits, published=published, **options)


def draw_regression(**options):
    rng = np.random.default_rng(2)
    x = np.geomspace(1e-3, 1, 40)
    y = 3 * x * np.exp(rng.normal(0, 0.2, 40))
    options = {"x_label": "α / N", "y_label": "D²"} | options
    return plotting.regression(x, y, colour=x, colour_label="α", reference=1.0, **options)


def draw_mdp(**options):
    mdp = envs.paper_mdp()
    return plotting.mdp(mdp, envs.optimal_q(mdp), **options)


LAW = DriftLaw(2.9, 5.83, 1.305, 10.7)
PICTURES = {
    "learning_curves": lambda **o: plotting.learning_curves(by_epsilon(), start=13.7, **o),
    "curves": lambda **o: plotting.curves(grid(), **o),
    "regression": draw_regression,
    "coefficients": draw_coefficients,
    "drift": lambda **o: plotting.drift(*windows(), 64, LAW, **o),
    "mdp": draw_mdp,
    "speedup": lambda **o: plotting.speedup(grid(), **o),
    "heat": lambda **o: plotting.heat(grid(), "error_server", "num_agents", "sync_period", **o),
}


def legend(figure):
    found = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    return [text.get_text() for one in found for text in one.get_texts()]


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def censored(figure):
    return [line for line in figure.axes[0].lines if line.get_gid() == "censored"]


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_draws_and_labels_its_axes(name):
    figure = PICTURES[name]()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    for axis in figure.axes:
        shared = name == "coefficients" and axis is not figure.axes[-1]
        if axis.axison:
            assert axis.get_ylabel()
            assert axis.get_xlabel() or shared


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_draws_into_given_axes(name):
    count = {"coefficients": 4, "mdp": 2}.get(name, 1)
    figure = Figure(figsize=(6, 6))
    axes = figure.subplots(count, 1)
    assert PICTURES[name](axes=axes) is figure
    figure.draw_without_rendering()
    if count > 1:
        with pytest.raises(ValueError, match=f"needs {count}"):
            PICTURES[name](axes=axes[0])


@pytest.mark.parametrize("name", PICTURES)
def test_files_are_the_same_byte_for_byte(name, tmp_path):
    first = plotting.save(PICTURES[name](), tmp_path / "alpha_0.002")
    again = plotting.save(PICTURES[name](), tmp_path / "again")
    assert [path.name for path in first] == ["alpha_0.002.png", "alpha_0.002.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", PICTURES)
def test_saving_a_figure_already_shown_gives_the_same_bytes(name, tmp_path):
    figure = PICTURES[name]()
    one = [path.read_bytes() for path in plotting.save(figure, tmp_path / "a")]
    figure._repr_png_()
    assert one == [path.read_bytes() for path in plotting.save(figure, tmp_path / "b")]


def test_save_leaves_nothing_half_written(tmp_path, monkeypatch):
    figure = plotting.speedup(grid())
    (tmp_path / "figure.png").write_text("before")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="No space left"):
            plotting.save(figure, tmp_path / "figure")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_text() == "before"

    def broken(*_, **__):
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(RuntimeError, match="cannot draw"):
        plotting.save(figure, tmp_path / "figure")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_pictures_show_themselves_in_a_notebook():
    assert plotting.curves(grid())._repr_png_().startswith(b"\x89PNG")


def test_style_is_restored():
    before = mpl.rcParams["font.size"]
    with plotting.style():
        assert mpl.rcParams["font.size"] == 8
    assert mpl.rcParams["font.size"] == before


@pytest.mark.parametrize("as_cells", [False, True])
def test_speedup_legend_holds_the_fitted_slopes(as_cells):
    result = flat(grid()) if as_cells else grid()
    entries = legend(plotting.speedup(result, threshold=0.1))
    data = grid()
    for i, period in enumerate(PERIODS):
        own = data.error_server.values[:, i]
        if as_cells:
            own[0] = data.error_server.values[0, 0]  # single agents count for every line
        reached = time_to_threshold(TIMES, own, 0.1)
        n = np.broadcast_to(np.array(AGENTS)[:, None], reached.time.shape)
        fit = speedup_fit(n.ravel(), reached.take(np.ones(n.shape, bool)))
        # Crossings taken at their records, up to 25 % late at N = 8, gave -0.91 for both.
        assert abs(fit["slope"] + 1) < 2 * fit.standard_error("slope")
        expected = f"K = {period}: slope {fit['slope']:.3f} ± {fit.standard_error('slope'):.3f}"
        assert entries[i] == expected.replace("-", "\u2212")
    assert entries[2] == "ideal, 1/N"
    assert len(entries) == 3  # the learning rate follows N and makes no lines


def test_speedup_draws_every_run_and_censored_ones_as_triangles():
    result = grid().isel(time=slice(0, 30)).isel(sync_period=[0])  # N = 1 does not get there
    figure = plotting.speedup(result)
    triangles = censored(figure)
    reached = time_to_threshold(TIMES[:30], result.error_server.values[:, 0], 0.1)
    late = reached.censored.ravel()
    assert 0 < late.sum() < late.size
    assert sum(len(line.get_xdata()) for line in triangles) == late.sum()
    np.testing.assert_array_equal(triangles[0].get_ydata(), reached.last.ravel()[late])
    assert triangles[0].get_markerfacecolor() == "none"
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == (~late).sum()

    fit = speedup_fit(np.repeat(AGENTS, SEEDS), reached.take(np.ones((len(AGENTS), SEEDS), bool)))
    assert f"slope {fit['slope']:.3f}".replace("-", "\u2212") in legend(figure)[0]
    assert "not reached by its end" in legend(figure)


def test_speedup_says_when_there_is_no_slope_and_counts_diverged_runs():
    result = grid().isel(time=slice(0, 5))
    result.error_server[1, 1, 0, 3:] = np.nan
    result.diverged[1, 1, 0] = True
    figure = plotting.speedup(result)
    assert legend(figure)[0] == "K = 1: no slope"
    assert texts(figure) == ["1 of 32 runs diverged"]
    # It is censored at its last finite record, not at the end of the sweep.
    assert TIMES[2] in censored(figure)[1].get_ydata()


def test_speedup_draws_what_the_records_leave_open():
    # The first record is at 300: most runs of 8 agents have crossed by then.
    result = grid().isel(sync_period=[0], time=slice(2, None, 3))
    figure = plotting.speedup(result)
    reached = time_to_threshold(TIMES[2::3], result.error_server.values[:, 0], 0.1)
    (between,) = figure.axes[0].collections[:1]
    ends = np.array([segment[:, 1] for segment in between.get_segments()])
    open_end = reached.before == 0
    np.testing.assert_array_equal(ends[:, 0], reached.before[~open_end])
    np.testing.assert_array_equal(ends[:, 1], reached.time[~open_end])
    first = next(line for line in figure.axes[0].lines if line.get_gid() == "first")
    np.testing.assert_array_equal(first.get_ydata(), np.full(open_end.sum(), 300.0))
    assert ("reached by its first record" in legend(figure)) == open_end.any()


def test_speedup_of_runs_that_all_cross_by_the_first_record_has_no_slope():
    figure = plotting.speedup(grid().isel(sync_period=[0], time=slice(40, None)))
    assert legend(figure)[0] == "no slope"
    assert legend(figure)[2] == "reached by its first record"
    title = figure.axes[0].get_legend().get_title().get_text()
    assert title.endswith("no slope: 0 of 16 runs, of 0 N, cross between two records")


def test_speedup_reads_rewards_and_base_two():
    result = grid()
    result["reward"] = -result.error_server
    figure = plotting.speedup(result, threshold=-0.1, metric="reward", base=2, above=True)
    assert legend(figure)[0] == legend(plotting.speedup(result))[0]


def test_regression_text_is_that_of_the_fit():
    x = np.geomspace(1, 16, 20)
    y = 40 / x * np.exp(np.random.default_rng(0).normal(0, 0.1, 20))
    for base in (10.0, 2.0):
        fit = loglog(x, y, base)
        figure = plotting.regression(x, y, fit, base=base)
        slope = f"slope {fit['slope']:.3f} ± {fit.standard_error('slope'):.3f}"
        r = f"R² {fit.r_squared:.3f}, n = 20"
        assert texts(figure) == [f"{slope}\n{r}".replace("-", "\u2212")]
        line = next(one for one in figure.axes[0].lines if one.get_label().startswith("fit"))
        np.testing.assert_allclose(line.get_ydata()[0], base ** fit["intercept"], rtol=1e-12)


def test_regression_refuses_what_it_cannot_draw():
    x = np.arange(1.0, 9.0)
    with pytest.raises(ValueError, match=r"y must be positive.*1 of 8"):
        plotting.regression(x, x - 1)
    with pytest.raises(ValueError, match="8 values, y has 3"):
        plotting.regression(x, x[:3])
    with pytest.raises(ValueError, match="one regressor, the fit has a, b"):
        plotting.regression(x, x, ols(x, a=np.log(x), b=x))


def test_panels_have_titles_and_no_empty_axes():
    pictures = {f"({c})": lambda axes: draw_regression(axes=axes) for c in "abc"}
    figure = plotting.panels(pictures)
    figure.draw_without_rendering()
    titles = [axis.get_title("left") for axis in figure.axes if axis.get_title("left")]
    assert titles == ["(a)", "(b)", "(c)"]
    assert len(figure.axes) == 3
    with pytest.raises(ValueError, match="empty"):
        plotting.panels({})


def test_coefficients_draw_the_fits_and_the_published_points():
    figure = draw_coefficients()
    fits = windowed(*windows(), 64)
    drawn = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, [fit["sync_period"] for fit in fits.values()])
    assert figure.axes[1].lines[1].get_ydata() == [1.24]
    assert len(figure.axes[2].lines) == 1  # nothing published for the learning rate
    with pytest.raises(ValueError, match="no 'momentum'"):
        plotting.coefficients(fits, names={"momentum": "momentum"})


def test_learning_curves_show_every_seed_and_a_lopsided_band():
    result = by_epsilon()
    figure = plotting.learning_curves(result, start=13.7, tail=10)
    axis = figure.axes[0]
    thin = [line for line in axis.lines if line.get_linewidth() == 0.5]
    assert len(thin) == 2 * SEEDS
    assert {line.get_color() for line in thin} == {"#222222", "#009E73"}
    final = result.error_local_mean.values[..., -10:].mean(-1)
    box = axis.patches[0].get_bbox()
    spread = final.std(ddof=1)
    np.testing.assert_allclose([box.y0, box.y1], [final.mean() - spread, final.mean() + spread])
    assert legend(figure) == [
        "median, ε = 0",
        "median, ε = 1",
        "start",
        "threshold",
        "steady state, mean ± sd",
    ]


def test_zeros_count_in_the_median_of_learning_curves():
    result = by_epsilon().isel(epsilon=[0], seed=[0, 1, 2])
    result.error_local_mean[0, :2] = 0.0  # two of three seeds
    figure = plotting.learning_curves(result, start=None)
    (median,) = (line for line in figure.axes[0].lines if line.get_label().startswith("median"))
    np.testing.assert_array_equal(median.get_ydata(), 0.0)
    assert figure.axes[0].get_ylim()[0] > 0


def test_learning_curves_of_any_sweep():
    """Without the paper's epsilon the colours are those of what was swept, or there is one."""
    assert legend(plotting.learning_curves(grid()))[:2] == ["median, N = 1", "median, N = 2"]
    single = grid().isel(num_agents=0, sync_period=0)
    assert legend(plotting.learning_curves(single))[0] == "median"
    other = single[["error_server", "diverged"]].rename(error_server="gap")
    assert legend(plotting.learning_curves(other)) == ["median", "steady state, mean ± sd"]


def test_lines_whose_values_agree_in_six_digits_are_told_apart():
    result = grid().isel(num_agents=[0]).assign_coords(sync_period=[0.1, 0.10000001])
    figure = plotting.curves(result, by="sync_period")
    assert legend(figure) == ["K = 0.1", "K = 0.10000001"]
    bands = plotting.banded_curves(result.isel(num_agents=0, drop=True), "error_server")
    assert legend(bands)[:2] == ["K = 0.1", "K = 0.10000001"]


def test_curves_go_forwards_in_time():
    result = grid()
    shuffled = result.isel(time=np.random.default_rng(0).permutation(len(TIMES)))
    for draw in (plotting.curves, plotting.speedup):
        lines = [[line.get_xydata() for line in draw(r).axes[0].lines] for r in (result, shuffled)]
        for one, other in zip(*lines, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_interval_that_the_axis_cuts_ends_in_an_arrow():
    wide, narrow = [1.0, 2.0, 30.0], [9.0, 10.0, 11.0]  # 11 - 41 is below zero
    figure = plotting.points({"a": {1: wide, 2: narrow}})
    (cut,) = (line for line in figure.axes[0].lines if line.get_gid() == "cut")
    np.testing.assert_allclose(cut.get_xydata(), [[1, 1.1]])
    caps = next(line for line in figure.axes[0].lines if line.get_marker() == "_")
    assert np.isnan(caps.get_ydata()).sum() == 1
    with pytest.raises(ValueError, match=r"a has the mean -1, which a logarithmic axis cannot"):
        plotting.points({"a": {1: [-1.0, -2.0, 0.0]}})
    figure = plotting.pareto({"ES": {"sign": (wide, narrow)}, "X": {"": (narrow, narrow)}})
    (cut,) = (line for line in figure.axes[0].lines if line.get_gid() == "cut")
    np.testing.assert_allclose(cut.get_xydata(), [[0.11, 10]])


def test_what_diverged_is_left_out_and_said():
    result = grid()
    result.diverged[0, 0, 1] = True
    figure = plotting.heat(result, "bytes_up", "num_agents", "sync_period")
    assert [text for text in texts(figure) if "*" in text] == ["4096*"]
    assert figure.axes[0].get_title("left") == "* without runs that diverged"
    figure = plotting.points({"a": {1: [1.0, np.nan, 3.0], 2: [1.0, 1.5, 2.0]}})
    assert texts(figure) == ["2 of 3"]


def test_phases_of_unequal_number_are_averaged_over_those_there_are():
    phases = np.array([[3.0, np.nan], [5.0, 7.0], [9.0, np.nan]])
    figure = plotting.drift([1.0, 2, 3], [4, 8, 10], 0.1, 16, LAW, phases=phases)
    curve = next(line for line in figure.axes[0].lines)
    expected = [np.mean([LAW(0.1, 16, j) for j in row[~np.isnan(row)]]) for row in phases]
    np.testing.assert_allclose(curve.get_ydata(), expected)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_learning_curves_make_a_grid_with_one_range(count):
    figure = plotting.learning_curves({f"({i})": (1 + i) * by_epsilon() for i in range(count)})
    figure.draw_without_rendering()
    assert len(figure.axes) == count
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    labelled = [bool(axis.get_xlabel()) for axis in figure.axes]
    assert labelled == [i + 2 >= count for i in range(count)]


def test_runs_stopped_early_are_averaged_over_their_own_end():
    result = by_epsilon()
    early = result.error_local_mean.where(result.time <= 9000)
    stopped = result.assign(error_local_mean=early)
    whole = plotting.learning_curves(result.sel(time=slice(0, 9000)))
    assert (
        plotting.learning_curves(stopped).axes[0].patches[0].get_bbox().y1
        == whole.axes[0].patches[0].get_bbox().y1
    )


def test_curves_draw_the_median_of_each_group_and_name_diverged_runs():
    result = grid()
    result.error_server[2, 0, 1:, 50:] = np.nan
    result.diverged[2, 0, 1:] = True
    figure = plotting.curves(result.isel(sync_period=0))
    assert legend(figure)[2] == "N = 4 (3 of 4 diverged)"
    median = np.median(result.error_server.values[0, 0], axis=0)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), median)
    assert figure.axes[0].get_title("left") == "median and quartiles over seeds"
    pooled = plotting.curves(grid(), by="num_agents")
    assert pooled.axes[0].get_title("left") == "median and quartiles over seeds and sync period"


def test_curves_answer_by_any_property():
    """Means of late records with Student's interval, of each value of x, line and panel."""
    result = grid()
    figure = plotting.curves(result, x="num_agents", facet="sync_period")
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == [f"K = {k}" for k in result.sync_period.values]
    late = result.error_server.values[..., result.sizes["time"] // 2 :].mean(-1)
    for panel, axis in enumerate(figure.axes):
        (line, _, (bars,)) = axis.containers[0]
        runs = late[:, panel]
        np.testing.assert_allclose(line.get_ydata(), runs.mean(1))
        half = stats.t.ppf(0.975, runs.shape[1] - 1) * runs.std(1, ddof=1) / runs.shape[1] ** 0.5
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * half)
    two = plotting.curves(result.isel(seed=slice(2)), hue="sync_period", x="num_agents")
    assert legend(two) == [f"K = {k}" for k in result.sync_period.values]
    # Of two runs there is no interval.
    assert not any(segment.size for segment in two.axes[0].containers[0][2][0].get_segments())
    words = result.assign_coords(sync_period=["a", "b"])
    assert plotting.curves(words, x="sync_period").axes[0].get_xlabel() == "local steps per round K"
    for wrong, message in (
        ({"x": "num_agnts"}, "'num_agnts' is no property to draw against; did you mean num_agents"),
        ({"facet": "period"}, "Known: learning_rate, num_agents, seed, sync_period"),
        ({"hue": "seed", "facet": "seed"}, "hue is seed, as x or facet is; allowed: another"),
        ({"x": "seed", "facet": "seed"}, "facet is seed, as x is; allowed: another"),
        ({"hue": "seed", "by": "seed"}, "by is 'seed' beside hue"),
    ):
        with pytest.raises(ValueError, match=message):
            plotting.curves(result, **wrong)


def test_an_axis_of_time_says_what_time_counts():
    result = grid().rename(num_agents="algorithm").assign_coords(algorithm=list("abcd"))
    result = result.isel(sync_period=0).drop_vars("learning_rate")
    for said, label in (
        ("steps of one agent", "environment steps of an agent"),
        ("rounds of one agent", "rounds of one agent"),
        ("updates of the server", "updates of the server"),
    ):
        result.time.attrs["long_name"] = said
        figure = plotting.curves(result)
        assert figure.axes[0].get_xlabel() == label
        assert legend(figure) == ["a", "b", "c", "d"]


def test_the_metric_is_that_of_the_algorithm_unless_one_is_named():
    result = grid().assign(gap=grid().error_server + 1)
    assert plotting.curves(result).axes[0].get_ylabel().startswith("squared distance")
    result.attrs["headline"] = "gap"
    assert plotting.curves(result).axes[0].get_ylabel() == "gap"


def test_a_summary_says_the_question_and_the_numbers():
    result = grid().assign_attrs(algorithm="fedq")
    result.diverged[0, 0, 1] = True
    found = frl.summary(result)
    assert found.question.startswith("How does error_server of fedq change with num_agents (1, 2, ")
    assert found.question.endswith("4 seeds, 12\u2009000 steps.")
    late = result.error_server.values[0, 0, :, result.sizes["time"] // 2 :].mean(-1)
    half = stats.t.ppf(0.975, 3) * late.std(ddof=1) / 2
    mean = late.mean()
    assert found.rows[0][2] == f"{mean:.4g} [{mean - half:.4g}, {mean + half:.4g}]"
    assert found.rows[0][-1] == "1 of 4"
    assert len(found.rows) == result.sizes["num_agents"] * result.sizes["sync_period"]
    assert found.rows[0][2] in repr(found)
    assert found.rows[0][2] in found._repr_html_()
    result["own"] = result["error_server"].where(result.num_agents == 1)
    assert frl.summary(result, "own").rows[-1][2] == "not measured"
    two = frl.summary(result.isel(seed=slice(2)))
    assert "[" not in two.rows[0][2]
    assert "2 runs are too few for an interval" in two.notes
    with pytest.raises(ValueError, match="did you mean error_server"):
        frl.summary(result, "eror_server")


def test_curves_of_one_run_and_of_an_all_diverged_one():
    one = grid().isel(num_agents=0, sync_period=0, seed=0)
    plotting.curves(one).draw_without_rendering()
    lost = one.assign(error_server=one.error_server * np.nan, diverged=True)
    figure = plotting.curves(lost)
    figure.draw_without_rendering()
    assert legend(figure) == ["median (1 of 1 diverged)"]


def test_curves_per_agent_leave_out_the_padding():
    values = np.full((2, 3, 4, 10), 2.0)
    values[0, :, 1:] = np.nan
    result = xr.Dataset(
        {"error_local": (("num_agents", "seed", "agent", "time"), values)},
        {"num_agents": [1, 4], "seed": range(3), "time": np.arange(10)},
    )
    figure = plotting.curves(result, "error_local")
    assert legend(figure) == ["N = 1", "N = 4"]
    assert figure.axes[0].get_title("left") == "median and quartiles over seeds and agents"


def test_drift_draws_the_law_at_the_phases_given():
    final, period, alpha = windows()
    smooth = plotting.drift(final, period, alpha, 64, LAW)
    assert len(smooth.axes[0].lines) == 3  # one per learning rate
    phases = np.tile([[3.0, 7.0]], (len(final), 1))
    line = plotting.drift(final, period, alpha, 64, LAW, phases=phases).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), LAW(0.2, 64, [3.0, 7.0]).mean())
    with pytest.raises(ValueError, match="2 runs"):
        plotting.drift(final, period, alpha, 64, LAW, phases=phases[:2])
    with pytest.raises(ValueError, match="sync_period must be finite and above 1"):
        plotting.drift(final, 1, alpha, 64)


def test_mdp_draws_an_arrow_per_transition_that_matters():
    mdp = envs.paper_mdp()
    figure = draw_mdp()
    heads = [p for p in figure.axes[1].patches if type(p).__name__ == "FancyArrowPatch"]
    assert len(heads) == (mdp.transition >= 1e-3).sum()
    assert "0\nr \u22120.82" in [text.get_text() for text in figure.axes[1].texts]
    assert [text.get_text() for text in figure.axes[0].texts][:3] == ["0.574", "0.827", "1.14"]


def test_mdp_refuses_families_wrong_tables_and_crowds():
    mdp = envs.random_mdp(num_states=20)
    with pytest.raises(ValueError, match="too many"):
        plotting.mdp(mdp, np.zeros((20, 3)))
    with pytest.raises(ValueError, match="it must be \\(20, 3\\)"):
        plotting.mdp(mdp, np.zeros((3, 20)))
    with pytest.raises(ValueError, match="one MDP"):
        plotting.mdp(envs.random_mdps([0, 1]), np.zeros((4, 3)))


def test_heat_shows_numbers_and_hatches_what_is_missing():
    result = grid()
    figure = plotting.heat(result, "bytes_up", "num_agents", "sync_period")
    assert set(texts(figure)) == {"4096"}
    result.diverged[0, 1] = True
    figure = plotting.heat(result, "error_server", "num_agents", "sync_period", last=5)
    assert len(texts(figure)) == 7
    assert [patch.get_hatch() for patch in figure.axes[0].patches] == ["////"]
    image = figure.axes[0].images[0].get_array()
    expected = np.median(result.error_server.values[3, 0, :, -5:].mean(-1))
    np.testing.assert_allclose(image[0, 3], expected)


def test_unknown_names_are_answered_with_the_nearest():
    result = grid()
    with pytest.raises(ValueError, match="did you mean error_server"):
        plotting.speedup(result, metric="eror_server")
    with pytest.raises(ValueError, match="did you mean sync_period"):
        plotting.curves(result, by="sync_perod")
    with pytest.raises(ValueError, match="did you mean num_agents"):
        plotting.heat(result, "bytes_up", "num_agent", "sync_period")
    with pytest.raises(ValueError, match="no time dimension"):
        plotting.curves(result, "bytes_up")
    with pytest.raises(ValueError, match="no num_agents"):
        plotting.speedup(result.isel(num_agents=0, drop=True))


@pytest.mark.parametrize(("cumulative", "window"), [(True, 1), (False, 2), (False, 1)])
def test_lines_of_single_trials_are_of_what_their_mean_is(cumulative, window):
    table = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]])
    lines = {"a": xr.Dataset({"x": (("seed", "time"), table)}, {"time": [1, 2, 3]})}
    axis = Figure().subplots()
    curve_page.curves(
        axis, lines, "x", "x", cumulative=cumulative, window=window, interval=None, each=True
    )
    mean, *each = (line.get_ydata() for line in axis.lines if len(line.get_ydata()) > 1)
    wanted = table.cumsum(axis=1) if cumulative else table
    if window == 2:
        wanted = (table[:, 1:] + table[:, :-1]) / 2
    np.testing.assert_allclose(each[:2], wanted)
    np.testing.assert_allclose(mean, wanted.mean(axis=0))

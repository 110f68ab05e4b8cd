"""What differs from the algorithm of the paper: the authors' code, and another anchor."""

from __future__ import annotations

from fedjax_rl import algorithms
from fedjax_rl.studies.claims import number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean, ratio
from fedjax_rl.studies.momentum.poles import CLIP, LIMITS, OWN, all_methods, long_runs
from fedjax_rl.studies.momentum.tables import CLIPPED, ERROR, HA, PLAIN, SV, TODAY, tuned_runs
from fedjax_rl.studies.numbers import beside
from fedjax_rl.studies.pictures import against, curves, page
from fedjax_rl.studies.policy_gradients import cartpoles


@figure("authors", "the authors' code and another anchor beside the algorithm")
def authors(size):
    """What differs from the algorithm of the paper, and what that does.

    A public implementation takes the model sent down last as the anchor, of which u is not the
    gradient: the error of u grows. In the authors' code the momentum begins anew in every round,
    and the server averages: β has no effect, as in their logs.
    """
    made, other = tuned_runs(size)
    code = {"authors_code": True, "normalize": True, "weight_clip": CLIP, "baseline": "linear"}
    code = OWN | code
    task = cartpoles()
    theirs = {SV: algorithms.fedsvrpg_m(task, **code), HA: algorithms.fedhapg_m(task, **code)}
    settings = {f"η = {e:g}": {"momentum": 0.2, "learning_rate": e} for e in (0.05, 0.1)}
    settings["η = 0.05, β = 1"] = {"momentum": 1.0, "learning_rate": 0.05}
    value = long_runs(size, "poles-authors", theirs, {"setting": settings}, 200)["return"]
    poles = all_methods(size)["return"].sel(server_learning_rate=0.003)
    today = other["estimator_error"].late(0.25)[TODAY]
    before = made["estimator_error"].late(0.25)
    yield number(
        "T3",
        "error of the estimator with the anchor of today in parts of that of the round before, "
        "λ = 1",
        ratio(today.sel(server_learning_rate=1.0), before[SV].sel(server_learning_rate=1.0)),
        (1.0, None),
    )
    last = value.late(0.25)
    yield number(
        "T7",
        "authors' code, return at the end, β = 0.2 less β = 1, η = 0.05: FedSVRPG-M, FedHAPG-M",
        mean(last.sel(setting="η = 0.05") - last.sel(setting="η = 0.05, β = 1")),
        ((-5, 5), (-5, 5)),
        reference=(0, 0),
    )

    def beside_theirs(method, label):
        own = poles[label].then(lambda array: array.assign_coords(setting="the algorithm"))
        shown = beside(own, value[method], dim="setting")
        return curves(shown, by="setting", title=f"CartPoles: {method}", y="return", limits=LIMITS)

    yield page(
        "authors",
        against(
            beside(before[[SV, PLAIN]], today).sel(server_learning_rate=[0.1, 0.5, 1.0]),
            "server_learning_rate",
            title="M2, β = 0.1",
            x="server's step λ",
            y=ERROR,
            styles={TODAY: 3},
            dodge=0.05,
        ),
        beside_theirs(SV, CLIPPED),
        beside_theirs(HA, f"{HA}, β = 0.2"),
        title=f"Authors' code, another anchor: {size.tuned_trials} and {size.pole_trials} trials",
        caption="η: authors' code, β = 0.2 unless said otherwise; the algorithm: λ = 0.003",
        legends="below",
        height=2.8,
    )

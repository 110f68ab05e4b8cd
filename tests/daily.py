"""Which cases of tests over many cases are run every day; the others are thorough.

What is promised of every algorithm is tested for every algorithm. Most of these share the code that
could break it, and every one compiles programs of its own: one of each form is enough to notice.
"""

# Of all algorithms one of each form: on tables, of episodes, of a clock, with networks.
FORMS = ("fedq", "es", "dql", "fedpg", "fedhapg-m", "afedpg", "fedppo", "qavg")

# Files of which every test over algorithms has these alone, unless it is named below.
OF_FORMS = ("test_contract", "test_costs")

# Test -> its cases, by what stands in brackets behind its name.
DAILY = {
    "test_a_federation_is_the_same_in_any_company_and_over_any_devices": (
        *("fedq", "es", "fedpg", "afedpg"),
    ),
    "test_members_are_spread_over_devices_that_do_not_divide_them": ("fedq", "es"),
    "test_members_on_a_clock_are_spread_over_devices": ("qavg",),
    "test_members_of_a_federation_on_a_clock_lie_on_several_devices": (),
    "test_killed_and_resumed_is_uninterrupted": ("fedq", "ns-es", "davia", "afedpg", "fedppo"),
    # FedAPG, the dearest, climbs closed forms of its gradient in tests of its own.
    "test_a_derivative_is_right_or_refused": FORMS,
    "test_no_nan_is_made": ("fedq", "fedtd", "espc", "davia", "fedhapg-m", "a3c-pg"),
    "test_returns_are_told_with_and_without_discount": ("espc", "nsra-es", "dql", "reinforce"),
    "test_a_clock_hands_every_agent_its_own_model": ("davia-two of three", "qavg-with failures"),
    "test_numbers_are_the_same_without_compiling": (),
    "test_some_numbers_do_not_move": (
        "fedq-importance, top-k",
        "fedpg-first two, partial",
        "qavg-plain",
    ),
    "test_a_schedule_is_one_value_and_then_another": ("afedpg", "qavg"),
    "test_sampled_gradients_learn": ("svrpg",),
    "test_an_own_uplink_goes_with_every_algorithm_and_is_swept": ("es",),
    "test_control_variates_stay_the_mean_of_those_of_the_agents": ("semi-synchronous",),
    "test_sizes_of_brax": ("hopper-11-3-0.008-5126",),
    "test_two_rounds_with_an_uplink": ("dql-lazy", "davia-scaled-sign", "ef-td-event-triggered"),
    "test_files_are_the_same_byte_for_byte": ("curves", "heat", "speedup"),
    "test_saving_a_figure_already_shown_gives_the_same_bytes": ("learning_curves",),
    "test_episodes_of_the_original": ("BigFish-40",),
    "test_a_copy_is_the_same_alone_and_among_others": ("CoinRun",),
    "test_with_failures_too_and_no_event_is_lost": ("0.5-1-0", "0.5-5-1", "5.0-2-2"),
    "test_an_algorithm_of_ones_own_is_the_loop_that_it_says": ("True",),
    "test_it_is_the_loop_of_n_steps": ("rmsprop",),
    "test_it_is_the_simulation_of_its_events": ("asynchronous-rmsprop",),
    "test_memory_is_that_of_its_state": ("clock",),
    "test_it_is_the_plain_loop": ("True-huber-3-1.0",),
    "test_it_runs": (),
    "test_a_plain_loop_over_the_same_words": ("markovian", "iid", "everything", "generative"),
    "test_a_clock_of_equal_times_that_waits_for_all_is_rounds_exactly": ("fedq",),
    "test_derivatives_through_sampled_actions_are_refused": ("a property",),
    "test_traced_optimal_values_are_the_concrete_ones_with_their_derivative": ("0.99",),
    "test_every_number_of_a_step_may_follow_time": ("markovian",),
    "test_of_tables_exactly": ("qavg",),
    "test_the_cost_model_of_linear_speedup_is_a_special_case": ("1-1.0-1", "10-0.1-8"),
    "test_agents_draw_their_first_states": ("True",),
    "test_dql_is_the_plain_loop": ("task1-sequential",),
    "test_exact_gradient_of_one_agent_is_plain_ascent": ("scaffold",),
    "test_local_and_server_optimisers_are_a_plain_loop": ("adam-reset",),
    "test_a_round_has_one_copy_of_the_environments_step": (
        *("fedpg-properties1-1", "es-properties5-1", "fast_fedpg-properties6-2"),
    ),
    "test_ledger_counts_both_exchanges": ("svrpg",),
    "test_every_uplink": ("partial", "top-k"),
    "test_rounds_by_hand_are_a_sweep": ("fedpg", "qavg"),
}

# Files that take long, the longest first; some of them have few tests.
LONG = (
    *("test_contract", "test_cli", "test_ppo", "test_local_gradient", "test_value_based"),
    *("test_es_family", "test_gradients", "test_observations"),
)


def place(item) -> int:
    """Of the file of a test in the order in which files are run."""
    name = item.path.stem
    return LONG.index(name) if name in LONG else len(LONG)


def is_daily(item) -> bool:
    """Whether a test, as pytest has collected it, is run every day as far as its case goes."""
    case = getattr(item, "callspec", None)
    if case is None:
        return True
    if item.originalname in DAILY:
        return case.id in DAILY[item.originalname]
    name = case.params.get("name")
    return item.path.stem not in OF_FORMS or not isinstance(name, str) or name in FORMS

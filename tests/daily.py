"""Which cases of tests over many cases are run every day; the others are thorough.

What is promised of every algorithm is tested for every algorithm. Most of these share the code that
could break it, and every one compiles programs of its own: one of each form is enough to notice.
"""

# Of all algorithms one of each form: on tables, of episodes, of a clock, with networks.
FORMS = ("fedq", "es", "dql", "fedpg", "afedpg", "fedppo", "qavg")

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
    "test_killed_and_resumed_is_uninterrupted": ("fedq", "davia", "afedpg", "fedppo"),
    # FedAPG, the dearest, climbs closed forms of its gradient in tests of its own.
    "test_a_derivative_is_right_or_refused": FORMS,
    "test_no_nan_is_made": ("fedq", "fedtd", "espc", "davia", "a3c-pg"),
    "test_returns_are_told_with_and_without_discount": ("espc", "dql", "reinforce"),
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
    "test_with_failures_too_and_no_event_is_lost": ("0.5-5-1", "5.0-2-2"),
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
    "test_a_round_has_one_copy_of_the_environments_step": ("es-properties5-1",),
    "test_every_bit_is_as_if_one_step_came_after_the_other": ("exponential-7",),
    "test_uplinks_and_the_ledger_know_nothing_of_it": (),
    "test_what_agents_keep_goes_with_them": ("afedpg",),
    "test_ledger_counts_both_exchanges": ("svrpg",),
    "test_every_uplink": ("partial", "top-k"),
    "test_rounds_by_hand_are_a_sweep": ("fedpg", "qavg"),
    "test_every_algorithm_tells_what_it_computes_and_keeps": ("fedq", "es", "afedpg"),
    "test_without_options_the_defaults_are_those_of_python_in_every_kind_of_environment": FORMS,
    "test_junk_is_mended_and_never_finished": (
        *("empty-config.json", "cut-summary.json", "junk-result.nc", "another record-result.nc"),
    ),
    "test_what_one_agent_has_learned_is_what_is_played": ("values0",),
    "test_it_runs_in_environments_of_all_kinds": (
        *("gymnax/Pendulum-v1", "gymnax/Breakout-MinAtar"),
    ),
    "test_agents_act_and_learn_by_what_was_seen_before_the_rollout": ("shared-1",),
    "test_the_gradient_is_that_of_the_plain_loss_of_a_trajectory": ("gymnax/Pendulum-v1",),
    "test_a_longer_run_goes_on_to_the_bits_of_a_fresh_one": ("properties0",),
    "test_odd_checkpoints_are_passed_over": (
        *("an empty newest step", "a step under another number", "everything junk", "half a save"),
    ),
    "test_shifting_all_rewards_shifts_all_tables_and_no_error": ("events",),
    "test_of_many_agents_too": ("70-1-900", "2500-1200-3"),
    "test_every_federation_is_simulated_once": ("steps-3", "episodes-1", "updates-8"),
    "test_pictures_are_drawn_the_same_again": ("pareto", "first"),
    "test_terminal_states_absorb": ("windy, clipped twice", "lake"),
    "test_what_sorts_and_what_compares_choose_the_same": ("1", "7", "12"),
    "test_agents_in_turns_are_agents_at_once": ("fedq-53-more0",),
    "test_seeds_that_no_number_of_devices_divides_are_spread": (),
    "test_of_strategies_whose_agents_have_one_environment": (),
    "test_pictures_are_seen_by_a_network_for_them": (),
    "test_policies_see_by_what_was_seen_before": (),
    "test_every_algorithm_keeps_its_critics": (),
}

# Test -> its cases that are not run every day, where most of them are.
SELDOM = {
    "test_what_is_public_has_an_example_that_runs": ("simulate", "Derivative", "differentiate"),
    "test_checkpoints_of_other_arguments_are_refused_by_name": (
        "before6-properties6-arguments6-uplink is ",
        "before7-properties7-arguments7-learning_rate",
    ),
}

# Files that take long, the longest first; some of them have few tests.
LONG = (
    *("test_cli", "test_contract", "test_ppo", "test_resume", "test_sweep", "test_procgen"),
    *("test_local_gradient", "test_value_based", "test_es_family", "test_examples"),
    *("test_observations", "test_gallery", "test_deep_q", "test_silence", "test_scale"),
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
    if case.id in SELDOM.get(item.originalname, ()):
        return False
    name = case.params.get("name")
    return item.path.stem not in OF_FORMS or not isinstance(name, str) or name in FORMS

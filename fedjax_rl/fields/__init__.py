"""What a property or an argument may be, declared once, and the one check of all of them.

A declaration is an `Allowed`: a sentence for people and a predicate for values. A dataclass has it
in the metadata of its fields (`declared`), a function in a decorator (`checked`); `check_config`
and `checked` then refuse whatever is not allowed, by name, value and what is allowed, whatever
type somebody hands in. What a user gives as a function says what it is a function of: `by_agents`
of the number of agents, `schedule` of time.
"""

from __future__ import annotations

from fedjax_rl.fields.allowed import (
    ANYTHING,
    COUNT,
    FINITE,
    FUNCTION,
    MOST_UNITS,
    NAME,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    SEED,
    Allowed,
    anything,
    instance,
    nothing,
    number,
    reals,
    sizes,
    switch,
    whole,
    word,
    words,
)
from fedjax_rl.fields.check import check
from fedjax_rl.fields.checked import check_config, checked
from fedjax_rl.fields.declared import declarations, declared
from fedjax_rl.fields.evaluated import check_schedules, evaluated, looked_at, schedule_values
from fedjax_rl.fields.functions import ByAgents, Schedule, by_agents, schedule
from fedjax_rl.fields.plateau import OnPlateau, on_plateau
from fedjax_rl.fields.values import (
    LARGEST,
    SMALLEST,
    WHOLE_LIMIT,
    is_concrete,
    is_number,
    is_whole,
    plain,
    plain_tuple,
    real_array,
)

__all__ = [
    "ANYTHING",
    "COUNT",
    "FINITE",
    "FUNCTION",
    "LARGEST",
    "MOST_UNITS",
    "NAME",
    "NOT_NEGATIVE",
    "POSITIVE",
    "PROBABILITY",
    "SEED",
    "SMALLEST",
    "WHOLE_LIMIT",
    "Allowed",
    "ByAgents",
    "OnPlateau",
    "Schedule",
    "anything",
    "by_agents",
    "check",
    "check_config",
    "check_schedules",
    "checked",
    "declarations",
    "declared",
    "evaluated",
    "instance",
    "is_concrete",
    "is_number",
    "is_whole",
    "looked_at",
    "nothing",
    "number",
    "on_plateau",
    "plain",
    "plain_tuple",
    "real_array",
    "reals",
    "schedule",
    "schedule_values",
    "sizes",
    "switch",
    "whole",
    "word",
    "words",
]

"""Which policy fits a task, and whether one does."""

from __future__ import annotations

from fedjax_rl import fields
from fedjax_rl.envs.task import Continuous, Discrete, Task
from fedjax_rl.learners.network_policies import DEVIATION, Categorical, Gaussian
from fedjax_rl.learners.sight import check_vectors
from fedjax_rl.learners.stochastic_policies import Policy, SoftmaxTable
from fedjax_rl.names import check_known
from fedjax_rl.networks import MLP
from fedjax_rl.networks.mlp import INITIALIZERS

POLICIES = ("table", "mlp")


@fields.checked(
    task=fields.instance(Task),
    hidden=fields.sizes(),
    deviation=DEVIATION,
)
def policy_for(
    task,
    kind: str | None = None,
    *,
    hidden: tuple[int, ...] = (8, 8),
    activation: str = "tanh",
    initializer: str = "normal",
    deviation: float = 0.5,
) -> Policy:
    """The policy of that kind that fits a task.

    Args:
      task: an `envs.Task`.
      kind: "table" (where observations are states: softmax of one preference per state and
        action), "mlp" (a network: softmax for discrete actions, Gaussian for continuous ones) or
        None, the table where there is one.
      hidden: units in each hidden layer of the network.
      activation: of the hidden units, of `networks.mlp.ACTIVATIONS`.
      initializer: of the network, of `networks.mlp.INITIALIZERS`.
      deviation: first standard deviation of continuous actions, above 0.

    Raises:
      ValueError: an unknown word, a table where observations are no states, a network where they
        are pictures, a network without units, a deviation that is not above 0.
    """
    if kind is not None:
        check_known(kind, POLICIES, "policy")
    states = task.num_states
    discrete = isinstance(task.action, Discrete)
    if kind == "table" and (states is None or not discrete):
        raise ValueError(
            f"policy is table on {task.name}; allowed: on a grid or a tabular MDP, whose "
            "observations are states"
        )
    if kind != "mlp" and states is not None and discrete:
        return SoftmaxTable(states, task.action.num)
    check_known(initializer, INITIALIZERS, "initializer")
    check_vectors("policy", "mlp", task)
    outputs = task.action.num if discrete else task.action.size
    units = tuple(int(number) for number in hidden)
    network = MLP((task.observation_size, *units, outputs), activation)
    if discrete:
        return Categorical(network, task.encode, initializer)
    return Gaussian(network, task.encode, initializer, float(deviation), task.action.bounded)


def check_fits(task, policy: Policy) -> None:
    """Checks that a policy acts in a task.

    A softmax table of too few states would be read at its last one, without a word.

    Args:
      task: an `envs.Task`.
      policy: a table or a network; another is taken on trust.

    Raises:
      ValueError: observations or actions of another kind or number than the task's.
    """
    action = task.action
    if isinstance(policy, SoftmaxTable):
        if task.num_states not in (None, policy.num_states):
            raise ValueError(
                f"policy has {policy.num_states} states on {task.name}; allowed: {task.num_states}"
            )
        actions, kind = policy.num_actions, Discrete
    elif isinstance(policy, Categorical | Gaussian):
        inputs = policy.network.sizes[0]
        if inputs != task.observation_size:
            raise ValueError(
                f"policy has {inputs} inputs on {task.name}; allowed: {task.observation_size}"
            )
        kind = Discrete if isinstance(policy, Categorical) else Continuous
        actions = policy.network.sizes[-1]
    else:
        return
    # Either kind of action has its number first.
    if not isinstance(action, kind) or actions != action[0]:
        raise ValueError(
            f"policy has {actions} {kind.__name__.lower()} actions on {task.name}; allowed: "
            f"{action[0]} {type(action).__name__.lower()} ones"
        )

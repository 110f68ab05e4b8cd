r"""What is known of linear systems with quadratic costs: the best gain, and the value of any.

Of `envs.lqr` tasks, in float64 on the host. The value of u = -K x from a state x is -x'P x plus
what noise costs, and the best gains follow from P one step later,

    K = gamma (R + gamma B'P B)^{-1} B'P A,   P <- Q + gamma A'P (A - B K),

from P = 0 behind the last step; far from it they are those of the fixed point, the discrete
algebraic Riccati equation of sqrt(gamma) A and sqrt(gamma) B.

* Anderson and Moore, *Optimal Control: Linear Quadratic Methods* (1990), sections 2.4 and 3.1.
"""

import numpy as np
import scipy.linalg

from fedjax_rl import fields
from fedjax_rl.envs.lqr import LQREnv, LQRParams
from fedjax_rl.envs.task import Task
from fedjax_rl.names import brief

_LQR = fields.instance(
    Task, text="a task of envs.lqr", where=lambda task: isinstance(task.env, LQREnv)
)


@fields.checked(task=_LQR)
def lqr_gain(task: Task) -> np.ndarray:
    """The best gain where episodes never end: the action is u = -K x.

    It is the best one of finite episodes, too, as far as what comes behind them has no weight.

    Args:
      task: of `envs.lqr`; another agent's is ``task.replace(params=...)``.

    Returns:
      K, float64 [M, n].

    Raises:
      ValueError: If ``task`` is another one, or its costs are infinite whatever is done.
    """
    own = _of(task)
    root = np.sqrt(task.discount)
    try:
        p = scipy.linalg.solve_discrete_are(
            root * own.dynamics, root * own.control, own.state_cost, own.action_cost
        )
    except (np.linalg.LinAlgError, ValueError) as error:
        raise ValueError(
            f"task is {task.name} with the discount {task.discount}, whose Riccati equation has no "
            "solution; allowed: a system that actions can hold, or a smaller discount"
        ) from error
    return _gain(own, task.discount, p)


@fields.checked(task=_LQR)
def lqr_gains(task: Task) -> np.ndarray:
    """The best gains of every step of an episode: the action of step t is u = -K_t x.

    Args:
      task: of `envs.lqr`.

    Returns:
      K, float64 [T, M, n]. The last one is 0: what an action leads to then is not paid for.

    Raises:
      ValueError: If ``task`` is another one.
    """
    own, found = _of(task), []
    p = np.zeros_like(own.state_cost)
    for _ in range(task.max_steps):
        gain = _gain(own, task.discount, p)
        found.append(gain)
        closed = own.dynamics - own.control @ gain
        p = own.state_cost + task.discount * own.dynamics.T @ p @ closed
    return np.stack(found[::-1])


@fields.checked(task=_LQR)
def lqr_return(task: Task, gain: np.ndarray) -> float:
    """The expected discounted return of an episode under u = -K x, the first state drawn.

    Args:
      task: of `envs.lqr`.
      gain: K, [M, n], or one of every step, [T, M, n].

    Raises:
      ValueError: If ``task`` is another one, or ``gain`` of another shape.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.lqr()
      >>> round(frl.envs.lqr_return(task, frl.envs.lqr_gains(task)), 2)
      -18.61
    """
    own, given = _of(task), fields.real_array(gain)
    size, actions = own.control.shape
    shapes = (actions, size), (task.max_steps, actions, size)
    if given is None or given.shape not in shapes:
        raise ValueError(
            f"gain is {brief(gain)}; allowed: an array {list(shapes[0])} or {list(shapes[1])}"
        )
    gains = np.broadcast_to(given, shapes[1])
    second = own.first**2 * np.eye(size)  # moment of the state
    total, weight = 0.0, 1.0
    for k in gains:
        total -= weight * np.sum((own.state_cost + k.T @ own.action_cost @ k) * second)
        closed = own.dynamics - own.control @ k
        second = closed @ second @ closed.T + own.noise**2 * np.eye(size)
        weight *= task.discount
    return float(total)


def _of(task: Task) -> LQRParams:
    own = task.params
    return LQRParams(*(np.asarray(getattr(own, name), np.float64) for name in vars(own)))


def _gain(own: LQRParams, discount: float, p: np.ndarray) -> np.ndarray:
    ahead = discount * own.control.T @ p
    return np.linalg.solve(own.action_cost + ahead @ own.control, ahead @ own.dynamics)

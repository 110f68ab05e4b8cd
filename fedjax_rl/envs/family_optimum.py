"""The largest mean objective of a family of MDPs: the reference that a gap is measured to.

It is solved exactly where the members share all but their rewards, and climbed elsewhere; in
float64 on the host. Axis letters: ``S`` states, ``U`` actions, ``N`` members of a family.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.families import average_mdp
from fedjax_rl.envs.objective import discounted, mean_reward
from fedjax_rl.envs.optimal import soft_optimal_values
from fedjax_rl.envs.policies import greedy_policy
from fedjax_rl.envs.solvers import expected_reward, optimal_q
from fedjax_rl.envs.tabular import TabularMDP, check_mdp, initial_distribution
from fedjax_rl.remembered import remembered


@fields.checked(entropy=fields.number(0, follows=False))
def optimum(mdps: TabularMDP, entropy: float = 0.0) -> float:
    """Returns the largest J that one softmax policy has as its mean over the members.

    Where the members share kernel, discount and one of rewards and start, J is the value of the
    `average_mdp`: it is solved by (soft) policy iteration, to rounding. Elsewhere J is maximised
    numerically over the logits from several starts, which need not find the global maximum; with
    an entropy bonus the norm of the gradient ends at 1e-10 or less, without one the maximum may lie
    at infinity and the value is the best that was met, deterministic policies included.
    Solved MDPs are remembered.

    Args:
      mdps: one MDP or a family with one leading axis [N]; not traced.
      entropy: tau, finite and at least 0.

    Returns:
      J*, in float64.

    Raises:
      ValueError: If ``entropy`` is out of its range or ``mdps`` has several leading axes.
      RuntimeError: If the gradient does not vanish.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> best = frl.envs.optimal_q(mdp).max(-1)
      >>> frl.envs.optimum(mdp) == float(best[mdp.initial_state])
      True
    """
    check_mdp(mdps, "mdps")
    return _best(mdps, entropy)[0]


@jax.custom_jvp
def traced_optimum(mdps: TabularMDP, entropy: chex.Array | float = 0.0) -> chex.Array:
    r"""Returns J* [] as `optimum` does, of what may be traced, with its derivative.

    It is found on the host. As a maximum it changes like J of the policy that attains it,

    .. math:: \mathrm{d} J^* = \partial J(\pi^*; \mathrm{mdp}, \tau)

    (the envelope theorem: the derivative of J in the policy vanishes at the maximum).

    Args:
      mdps: one MDP or a family with one leading axis [N].
      entropy: tau, finite and at least 0 [].
    """
    return _called(mdps, entropy)[0]


@traced_optimum.defjvp
def _envelope(primals, tangents):
    best, policy = _called(*primals)

    def at(mdps, entropy):
        # An action that is never taken has no bonus: 0 log 0 is 0.
        bonus = jnp.asarray(entropy, policy.dtype) * jnp.log(jnp.where(policy > 0, policy, 1.0))

        def one(mdp):
            return discounted(mdp, policy, mean_reward(mdp, policy.dtype) - bonus)

        return one(mdps) if mdps.transition.ndim == 3 else jnp.mean(jax.vmap(one)(mdps))

    return best, jax.jvp(at, primals, tangents)[1]


def optimum_of(mdps: TabularMDP, entropy=0.0):
    """Returns J*, the best mean objective of a family, also of one that is traced.

    Args:
      mdps: a family with one leading axis [N].
      entropy: tau >= 0 [].

    Returns:
      [] float64 on the host, or a tracer.
    """
    if not fields.is_concrete((mdps, entropy)):
        return traced_optimum(mdps, entropy)
    return np.asarray(optimum(mdps, float(entropy)))


def _called(mdps: TabularMDP, entropy) -> tuple[chex.Array, chex.Array]:
    """Returns J* [] and the policy [S, U] that attains it, solved on the host."""
    dtype = jnp.result_type(float)
    sizes = ((), mdps.transition.shape[-3:-1])
    kinds = jax.tree.map(jnp.result_type, (mdps, entropy))

    def solve(given):
        mdps, entropy = jax.tree.map(_from_words, given, kinds)
        found = _best(mdps, float(entropy))
        return tuple(_to_words(np.asarray(x, dtype), np) for x in found)

    shapes = jax.eval_shape(lambda: tuple(_to_words(jnp.zeros(size, dtype), jnp) for size in sizes))
    given = jax.tree.map(lambda x: _to_words(jnp.asarray(x), jnp), (mdps, entropy))
    # One after the other: `solve` looks its MDP up by content.
    found = jax.pure_callback(solve, shapes, given, vmap_method="sequential")
    return tuple(
        jax.lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint32 else x for x in found
    )


def _to_words(x, xp):
    """Doubles as pairs of uint32 [..., 2], anything else as it is.

    A callback runs in a thread of its own, in which `jax.enable_x64` of the caller's does not hold,
    and JAX would round what goes in and refuse what comes out.
    """
    if x.dtype != np.float64:
        return x
    if xp is np:
        return np.ascontiguousarray(x[..., None]).view(np.uint32)
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def _from_words(x, kind) -> np.ndarray:
    """The same back, on the host."""
    x = np.asarray(x)
    return np.ascontiguousarray(x).view(np.float64)[..., 0] if kind == np.float64 else x


def _best(mdps: TabularMDP, entropy: float) -> tuple[float, np.ndarray]:
    """Returns J* and the policy [S, U] that attains it, see `optimum`."""
    if np.ndim(mdps.transition) not in (3, 4):
        raise ValueError(
            f"mdps has a kernel of shape {np.shape(mdps.transition)}; allowed: [S, U, S] or "
            "[N, S, U, S]"
        )
    return _remembered(mdps, float(entropy))


@remembered(256)
def _remembered(mdps: TabularMDP, entropy: float) -> tuple[float, np.ndarray]:
    if np.ndim(mdps.transition) == 4:
        if not _shared(mdps):
            return _climbed(mdps, entropy)
        mdps = average_mdp(mdps)
    start = initial_distribution(mdps)
    if entropy == 0:
        q = optimal_q(mdps)
        return float(start @ q.max(-1)), greedy_policy(q)
    values = soft_optimal_values(mdps, entropy)
    q = expected_reward(mdps) + mdps.discount * np.asarray(mdps.transition) @ values
    return float(start @ values), _softmax(q / entropy)


def _shared(mdps: TabularMDP) -> bool:
    """Whether the mean of J is J of the mean MDP, which is linear in rewards and in starts."""

    def same(part) -> bool:
        return bool(np.all(np.asarray(part) == np.asarray(part)[:1]))

    linear = same(mdps.reward) or same(initial_distribution(mdps))
    return same(mdps.transition) and same(mdps.discount) and linear


def _climbed(mdps: TabularMDP, entropy: float) -> tuple[float, np.ndarray]:
    """Maximises the mean of J over logits, numerically; the maximum and its policy."""
    from scipy import optimize  # takes long to import, and only this needs it

    shape = (mdps.num_states, mdps.num_actions)
    model = _Model(mdps, entropy)
    mean = mdps.replace(
        **{
            name: np.mean(np.asarray(leaf, np.float64), axis=0)
            for name, leaf in (("transition", mdps.transition), ("reward", mdps.reward))
        },
        discount=np.mean(mdps.discount),
        initial_state=mdps.initial_state[0],  # a guess of the policy need not know the start
        initial_distribution=None,
    )
    if entropy == 0:
        guess = optimal_q(mean) / 0.1
    else:
        ahead = mean.transition @ soft_optimal_values(mean, entropy)
        guess = (expected_reward(mean) + float(mean.discount) * ahead) / entropy
    rng = np.random.default_rng(0)
    # The mean MDP's best policy is near where members are alike, and misleads where they are not.
    starts = [np.zeros(shape), guess, *rng.standard_normal((2, *shape))]
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-11, "maxcor": 30}
    found = []
    for start in starts:
        climb = optimize.minimize(
            model.descent, start.ravel(), jac=True, method="L-BFGS-B", options=options
        )
        found.append((-climb.fun, climb.x.reshape(shape)))
    best, logits = max(found, key=lambda pair: pair[0])
    if entropy == 0:
        # Without a bonus the maximum lies at infinite logits, where the climb cannot arrive.
        rounded = np.eye(shape[1])[logits.argmax(-1)]
        ends = ((best, _softmax(logits)), (model.value(rounded), rounded))
        best, policy = max(ends, key=lambda end: end[0])
        return float(best), policy
    logits = model.polished(logits)
    norm = np.linalg.norm(model.gradient(logits)[1])
    if not norm <= 1e-10:
        raise RuntimeError(f"the gradient at the optimum has norm {norm}; it should vanish.")
    return float(model.gradient(logits)[0]), _softmax(logits)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the policy [S, U] of logits."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class _Model:
    """The mean of J over a family in NumPy, with its gradient and Hessian in the logits.

    In NumPy, so that it neither needs nor changes JAX's setting of float64, and is not traced.
    """

    def __init__(self, mdps: TabularMDP, entropy: float):
        self.transition = np.asarray(mdps.transition, np.float64)
        self.reward = np.sum(self.transition * np.asarray(mdps.reward, np.float64), axis=-1)
        self.discount = np.asarray(mdps.discount, np.float64)[:, None, None]
        self.start = initial_distribution(mdps)
        self.entropy = entropy

    def _solved(self, policy: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inverse of I - discount P [N, S, S'] and the values [N, S]."""
        chain = np.einsum("su,nsut->nst", policy, self.transition)
        inverse = np.linalg.inv(np.eye(len(policy)) - self.discount * chain)
        return inverse, np.einsum("nst,tu,ntu->ns", inverse, policy, reward)

    def value(self, policy: np.ndarray) -> float:
        """Returns J without entropy of a policy [S, U]."""
        return np.mean(np.sum(self.start * self._solved(policy, self.reward)[1], axis=-1))

    def gradient(self, logits: np.ndarray) -> tuple[complex, np.ndarray]:
        """Returns J and its gradient [S, U]; complex logits give complex ones."""
        logs = logits - logits.real.max(-1, keepdims=True)
        logs = logs - np.log(np.sum(np.exp(logs), axis=-1, keepdims=True))
        policy = np.exp(logs)
        reward = self.reward - self.entropy * logs
        inverse, values = self._solved(policy, reward)
        visits = np.einsum("ns,nst->nt", self.start, inverse)
        q = reward + self.discount * np.einsum("nsut,nt->nsu", self.transition, values)
        gradient = np.mean(visits[..., None] * policy * (q - values[..., None]), axis=0)
        return np.mean(np.sum(self.start * values, axis=-1)), gradient

    def descent(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns -J and its gradient, flat."""
        objective, gradient = self.gradient(flat.reshape(self.transition.shape[1:3]))
        return -objective, -gradient.ravel()

    def hessian(self, logits: np.ndarray) -> np.ndarray:
        """Returns [S U, S U], by the complex step: exact to rounding, nothing is subtracted."""
        step = 1e-30
        columns = []
        for place in np.ndindex(logits.shape):
            moved = logits.astype(complex)
            moved[place] += 1j * step
            columns.append(self.gradient(moved)[1].imag.ravel() / step)
        return np.stack(columns, axis=-1)

    def polished(self, logits: np.ndarray) -> np.ndarray:
        """Takes Newton's steps for as long as they shorten the gradient."""
        norm = np.linalg.norm(self.gradient(logits)[1])
        for _ in range(20):
            gradient = self.gradient(logits)[1].ravel()
            # A constant added to a row changes nothing: the Hessian is singular that way.
            move = np.linalg.lstsq(self.hessian(logits), gradient, rcond=1e-12)[0]
            moved = logits - move.reshape(logits.shape)
            shorter = np.linalg.norm(self.gradient(moved)[1])
            if not shorter < norm:
                break
            logits, norm = moved, shorter
        return logits

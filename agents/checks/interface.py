"""Are the methods there, do they take what they are given, and do they return what they should?"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from agents.base import check_agent_class
from agents.checks.trial import STRIDE, Broken, Trial, Untested
from textenv.decoding import next_token_logprobs
from textenv.env import TextEnv
from textenv.language_model import LanguageModel
from textenv.vector_env import TextVectorEnv

DRAWS = 2000
"""Tokens drawn in each of four states, to be held against `logprobs`."""
SMALLEST_P_VALUE = 1e-6
"""Draws that are less likely than this to come from `logprobs` do not come from it."""
TOLERANCE = 1e-3
"""By how much log-probabilities may differ that ought to be the same."""


def check_constructor(trial: Trial) -> str:
    """The class can be made from an environment, a config and a seed, and its config can be kept."""
    agent_class = check_agent_class(trial.agent_class, getattr(trial.agent_class, "__name__", repr(trial.agent_class)))
    config_class: Any = agent_class.config_class
    if trial.config is None:
        trial.config = config_class()
    config = trial.config
    try:
        kept = config_class(**json.loads(json.dumps(dataclasses.asdict(config))))
    except (TypeError, ValueError) as error:
        raise Broken(
            f"{config_class.__name__} does not come back from JSON, in which a run keeps it: {error}. Give it fields "
            "that are numbers, texts, booleans or None"
        ) from error
    if kept != config:
        raise Broken(
            f"{config} comes back from JSON, in which a run keeps it, as {kept}. Give it fields that are numbers, "
            "texts, booleans or None"
        )
    try:
        inspect.signature(agent_class).bind(trial.worth, config, trial.seed, data=None)
    except TypeError as error:
        raise Broken(
            f"{agent_class.__name__}(env, config, seed, data=None) cannot be called: {error}. Give the constructor "
            "these four arguments"
        ) from error
    agent = trial.new()
    found = getattr(agent, "num_timesteps", None)
    if found != 0:
        raise Broken(f"num_timesteps of a new agent is {found}, expected 0; set self.num_timesteps = 0")
    return f"made from an environment, a {config_class.__name__} and a seed"


def check_learn(trial: Trial) -> str:
    """`learn` counts tokens, tells its callback, goes on, ends and stops where it should."""
    env = trial.env()
    agent = trial.new(env)
    seen: list[int] = []
    wrong: list[str] = []

    def callback(told: Any, metrics: Any) -> bool:
        if agent.num_timesteps <= (seen[-1] if seen else 0):
            # Raised at once, since this learning might never end.
            raise Broken(
                f"num_timesteps was {agent.num_timesteps} after an iteration and {seen[-1] if seen else 0} before; add "
                "the iteration's response tokens to it before callback is called"
            )
        if told is not agent:
            wrong.append("learn gave callback something else than the agent itself; call callback(self, metrics)")
        if not _are_metrics(metrics):
            wrong.append(f"learn gave callback {metrics!r}; expected are metrics as a dict of finite floats by name")
        seen.append(agent.num_timesteps)
        return True

    agent.learn(1, callback)
    if not seen:
        raise Broken(
            f"learn(1, callback) ended at num_timesteps {agent.num_timesteps} and never called callback; call "
            "callback(self, metrics) after each iteration"
        )
    trial.trained, trial.trained_in, trial.iteration = agent, env, seen[0]
    _check_end(seen, 0, 1)
    total, before = 3 * seen[0], len(seen)
    agent.learn(total, callback)
    _check_end(seen, before, total)
    before = len(seen)
    agent.learn(total, callback)
    _check_end(seen, before, total)
    if wrong:
        raise Broken(wrong[0])
    _check_stop(trial.new(), total)
    return f"an iteration has about {trial.iteration:,} tokens; it goes on, ends and stops where it should"


def _check_end(seen: list[int], before: int, total: int) -> None:
    """The iterations after the first `before` ended with the one that reached the total, if any were left to do."""
    if seen[-1] < total:
        raise Broken(
            f"learn({total}) ended at num_timesteps {seen[-1]}; go on `while self.num_timesteps < total_timesteps`"
        )
    surplus = sum(count >= total for count in seen[max(0, before - 1) : -1])
    if surplus:
        raise Broken(
            f"learn({total}) ended at num_timesteps {seen[-1]}, {surplus} iterations after {total} had been reached; "
            "total_timesteps counts from the agent's birth: loop `while self.num_timesteps < total_timesteps`"
        )


def _check_stop(agent: Any, total: int) -> None:
    calls = 0

    def stop(*_: Any) -> bool:
        nonlocal calls
        calls += 1
        return False

    agent.learn(total, stop)
    if calls > 1 or agent.num_timesteps >= total:
        raise Broken(
            "learn went on after callback had returned False; end with "
            "`if callback is not None and callback(self, metrics) is False: return`"
        )


def _are_metrics(metrics: Any) -> bool:
    return isinstance(metrics, dict) and all(
        isinstance(name, str) and isinstance(value, int | float | np.number) and math.isfinite(value)
        for name, value in metrics.items()
    )


def check_reference(trial: Trial) -> str:
    """Learning leaves the environment's reference as it was."""
    trial.needs_trained()
    ours = trial.worth.reference.model.state_dict()
    theirs = trial.trained_in.reference.model.state_dict()
    moved = [name for name, tensor in theirs.items() if not torch.equal(tensor, ours[name])]
    if moved:
        raise Broken(
            f"learn changed the environment's reference ({moved[0]} among others), to which the KL is paid; train a "
            "copy: env.reference.copy()"
        )
    return "the environment's reference is as it was"


def check_predict(trial: Trial) -> str:
    """`predict` gives actions for one observation and for many."""
    trial.needs_trained()
    agent, env = trial.trained, trial.worth
    rows = env.some_states(97)
    count = len(rows["input_ids"])
    shown = copy.deepcopy(rows)
    drawn = _action(agent.predict(rows), (count,))
    likeliest = _action(agent.predict(rows, deterministic=True), (count,))
    again = _action(agent.predict(rows, deterministic=True), (count,))
    if not all(np.array_equal(rows[name], shown[name]) for name in rows):
        raise Broken("predict changed the observation that it was given; work on a copy of its arrays")
    if not np.array_equal(likeliest["token"], again["token"]):
        raise Broken(
            "predict(observation, deterministic=True) gave other tokens the second time; take the likeliest token, "
            "without drawing"
        )
    for row in range(4):
        one = {name: batch[row] for name, batch in rows.items()}
        _action(agent.predict(one), ())
        single = _action(agent.predict(one, deterministic=True), ())
        if single["token"] != likeliest["token"][row]:
            raise Broken(
                f"predict(observation, deterministic=True) gave token {single['token']} for one observation and "
                f"{likeliest['token'][row]} for the same one in a batch; what one row gets may not depend on the others"
            )
    single_env = TextEnv(env.task, reference=env.reference, kl="full")
    single_env.step(agent.predict(single_env.reset(seed=0)[0])[0])
    vector_env = TextVectorEnv(env.task, num_envs=3, reference=env.reference, kl="full")
    vector_env.step(agent.predict(vector_env.reset(seed=0)[0])[0])
    trial.predicts = True
    return f"{len(set(drawn['token'].tolist()))} different tokens drawn in {count} states, alone and in a batch"


def _action(returned: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """What `predict` returned, if it is an action for so many observations."""
    what = "one observation" if shape == () else f"{shape[0]} observations"
    if not isinstance(returned, tuple) or len(returned) != 2 or returned[1] is not None:
        raise Broken(
            f"predict returned {_described(returned)} for {what}, expected (action, None); return action, None"
        )
    action = returned[0]
    if not isinstance(action, dict) or set(action) != {"token", "logprob"}:
        raise Broken(
            f'predict gave the action {_described(action)}, expected a dict of "token" and "logprob": what was chosen, '
            "and the log-probability with which it was"
        )
    for part, kind, wanted in (("token", np.integer, "whole numbers"), ("logprob", np.floating, "floats")):
        values = action[part]
        if not isinstance(values, np.ndarray | np.generic) or values.shape != shape:
            raise Broken(
                f"predict gave {part} as {_described(values)} for {what}, expected a NumPy array of shape {shape}; "
                "give it .reshape(np.shape(observation['input_ids'])[:-1])"
            )
        if not np.issubdtype(values.dtype, kind):
            raise Broken(f"predict gave {part} of type {values.dtype}, expected {wanted}; give it .astype(...)")
    return action


def check_logprobs(trial: Trial) -> str:
    """`logprobs` is a distribution, and the one that `predict` draws from."""
    trial.needs_trained()
    agent, worth = trial.trained, trial.worth
    if not callable(getattr(agent, "logprobs", None)):
        raise Untested(
            "it has no logprobs(observation), so it gets its gold score only, unless it has a language_model: its KL, "
            "objective and share of the optimum stay unknown. Give it one that returns the (N, V) log-probabilities "
            "that predict draws from"
        )
    told = worth.logprobs(agent, every=STRIDE)
    wanted = (len(worth.some_states(STRIDE)["input_ids"]), worth.reference.vocab_size)
    if told.shape != wanted:
        raise Broken(
            f"logprobs gave shape {tuple(told.shape)} for {wanted[0]} observations, expected {wanted}: a row an "
            "observation, a column a token"
        )
    if bool(told.isnan().any()) or bool((told == math.inf).any()):
        raise Broken("logprobs gave NaN or +inf; every value must be finite or -inf")
    total = told.double().logsumexp(dim=1)
    worst = int(total.abs().argmax())
    if not abs(float(total[worst])) < TOLERANCE:
        raise Broken(
            f"logprobs gave a row whose probabilities sum to {total[worst].exp():.4g}, expected 1; apply log_softmax "
            "over all tokens"
        )
    if trial.predicts:
        _draws_come_from(trial)
    model = getattr(agent, "language_model", None)
    if isinstance(model, LanguageModel):
        _says_the_same(trial, model)
    trial.tells = True
    return f"normalised in {len(told)} states" + (", and what predict draws from" if trial.predicts else "")


def _draws_come_from(trial: Trial) -> None:
    """Draws of the first token follow `logprobs`, and say so."""
    told = torch.as_tensor(trial.trained.logprobs(trial.worth.first_states))
    for row in range(len(told)):
        batch = {name: np.repeat(each[row : row + 1], DRAWS, axis=0) for name, each in trial.worth.first_states.items()}
        action = trial.trained.predict(batch)[0]
        tokens, reported = torch.as_tensor(action["token"]).long(), torch.as_tensor(action["logprob"]).double()
        true = told[row].double()
        if not torch.allclose(reported, true[tokens], atol=TOLERANCE, rtol=TOLERANCE):
            worst = int((reported - true[tokens]).abs().argmax())
            raise Broken(
                f"predict drew token {tokens[worst]} with logprob {reported[worst]:.4f}, but logprobs says "
                f"{true[tokens[worst]]:.4f}; report what logprobs says of the token that was drawn"
            )
        expected = true.exp() * DRAWS
        counts = tokens.bincount(minlength=len(true)).double()
        # The chi-square approximation wants five expected draws in each class, so rare tokens are one class.
        rare = expected < 5
        pooled = [torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, expected)]
        observed, due = (each[pooled[1] > 0] for each in pooled)
        certain = len(due) < 2
        impossible = observed.sum() < DRAWS
        if impossible or (not certain and chisquare(observed, due * DRAWS / due.sum()).pvalue < SMALLEST_P_VALUE):
            raise Broken(
                f"in {DRAWS} draws of predict in one state tokens came {counts.long().tolist()} times, but by logprobs "
                f"{[round(value, 1) for value in expected.tolist()]} are expected; draw every row by itself from what "
                "logprobs says, at the same temperature"
            )


def _says_the_same(trial: Trial, model: LanguageModel) -> None:
    """An agent's language model has the distribution that the agent tells."""
    first = trial.worth.first_states
    ids, mask = torch.from_numpy(first["input_ids"]), torch.from_numpy(first["attention_mask"]).bool()
    theirs = next_token_logprobs(model.model, ids, mask, model.sampling)
    told = torch.as_tensor(trial.trained.logprobs(first))
    gap = float((theirs.exp() - told.exp()).abs().max())
    if gap > TOLERANCE:
        raise Broken(
            f"the agent's language_model gives a token another probability than logprobs, by {gap:.3f}; either is used "
            "for evaluation, so let both be the policy, or rename language_model"
        )


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    return (
        f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
    )

"""Does it learn from the rewards alone, the same from the same seed, and on from where it was saved?"""

from __future__ import annotations

from typing import Any

import torch

from agents.checks.trial import Broken, Trial, Untested, global_state, seed_globally

LEAST_GAIN = 0.2
"""Share of J* − J_ref by which an agent must raise its objective; ours gain 0.7 and more in as many tokens."""


def check_determinism(trial: Trial) -> str:
    """Equal seeds give equal policies, other seeds others."""
    if not torch.equal(trial.behaviour(trial.learned()), trial.usual_behaviour):
        raise Broken(
            "two agents with the same seed learned different policies; draw everything from generators that are made "
            "from the seed, and call env.reset(seed=seed) in the constructor"
        )
    if torch.equal(trial.behaviour(trial.learned(seed=trial.seed + 1)), trial.usual_behaviour):
        raise Broken(
            "two agents with different seeds learned the same policy, so that runs with several seeds would say "
            "nothing; make the agent's generators from its seed, and call env.reset(seed=seed) in the constructor"
        )
    return "equal seeds give equal policies, to the bit, and other seeds others"


def check_global_random_state(trial: Trial) -> str:
    """Nobody's random numbers are touched but the agent's own."""
    how = (
        "draw from generators of the agent's own, and make layers without drawing weights (torch.nn.utils.skip_init) "
        "or in torch.random.fork_rng() with a seed"
    )
    usual, env = trial.usual_behaviour, trial.env()
    seed_globally(1)
    before = global_state()
    learned = trial.behaviour(trial.learned(env, global_seed=1))
    after = global_state()
    moved = [name for name in before if before[name] != after[name]]
    if moved:
        raise Broken(f"the global random state of {' and '.join(moved)} was drawn from or set; {how}")
    if not torch.equal(learned, usual):
        raise Broken(f"what was learned depends on the global random state; {how}")
    return "neither read nor moved"


def check_save_and_load(trial: Trial) -> str:
    """A saved agent comes back as it was, from files that cannot run code."""
    trial.needs_trained()
    agent = trial.trained
    loaded = trial.saved_and_loaded(agent)
    if loaded.num_timesteps != agent.num_timesteps:
        raise Broken(
            f"num_timesteps was {agent.num_timesteps} when the agent was saved and {loaded.num_timesteps} when it was "
            "loaded; save it"
        )
    if not torch.equal(trial.behaviour(loaded), trial.behaviour(agent)):
        raise Broken("the loaded agent has another policy than the saved one; save all weights and load them")
    return "the same policy comes back, from safetensors and JSON"


def check_going_on(trial: Trial) -> str:
    """An agent that was saved, loaded and learned on is one that was left undisturbed."""
    trial.needs_trained()
    total = 4 * trial.iteration
    whole = trial.new()
    whole.learn(total)
    part, calls = trial.new(), 0

    def stop_after_two(*_: Any) -> bool:
        nonlocal calls
        calls += 1
        return calls < 2

    part.learn(total, stop_after_two)
    loaded = trial.saved_and_loaded(part)
    loaded.learn(total)
    if loaded.num_timesteps != whole.num_timesteps or not torch.equal(trial.behaviour(loaded), trial.behaviour(whole)):
        raise Broken(
            "an agent that was saved, loaded and learned on came to another policy than one that was left undisturbed; "
            "save the optimiser, every generator, env.np_random and env.beta as well"
        )
    return "a run that was cut in two gives the same policy, to the bit"


def check_gold(trial: Trial) -> str:
    """False gold values change nothing."""
    if not torch.equal(trial.behaviour(trial.learned(trial.env(poisoned=True))), trial.usual_behaviour):
        raise Broken(
            "with false gold values the agent learned another policy, so it learns from gold or utility; they are for "
            "measuring only. Learn from the rewards alone: token_rewards of env.score, or what env.step pays"
        )
    return "false gold values change nothing"


def check_improves(trial: Trial) -> str:
    """The objective rises, or the reward where only that can be told."""
    worth, agent = trial.worth, trial.new()
    what = "objective J" if trial.tells else "mean reward"
    if trial.tells:
        before = float(worth.objective(worth.logprobs(agent)).objective)
        agent.learn(trial.tokens)
        after = float(worth.objective(worth.logprobs(agent)).objective)
        whole = float(worth.best.objective - worth.start.objective)
    elif trial.predicts:
        # An agent that searches is better than the reference before it has learned anything.
        before = min(worth.reward(agent), float(worth.start.reward))
        agent.learn(trial.tokens)
        after = worth.reward(agent)
        whole = float(worth.best.reward - worth.start.reward)
    else:
        raise Untested("not tested, since neither predict nor logprobs passed, by which it is measured")
    gain = (after - before) / whole
    found = f"after {agent.num_timesteps:,} tokens the {what} went from {before:.3f} to {after:.3f}, "
    found += f"{gain:.2f} of what lies between reference and optimum"
    if not gain >= LEAST_GAIN:
        raise Broken(
            f"{found}; expected is {LEAST_GAIN} or more. Look at the sign of the loss and the learning rate, or allow "
            "more tokens"
        )
    return found

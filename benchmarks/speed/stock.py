"""stable-baselines3's PPO as it comes, which knows nothing of caches: every step encodes the whole text again."""

from __future__ import annotations

from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents.sb3 import CausalLMPolicy, TextVecEnv
from benchmarks.speed.worker import Clock, Watched
from benchmarks.speed.workload import LEARNING_RATE, Workload
from textenv.vector_env import TextVectorEnv


class _Laps(BaseCallback):
    """A rollout begins where the iteration before it ends."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._begun = clock, False

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._begun:
            self._clock.lap()
        self._begun = True


def ppo(workload: Workload, clock: Clock) -> None:
    """Rollouts of one whole episode in each environment."""
    shape = workload.shape
    env = TextVecEnv(
        TextVectorEnv(
            workload.task,
            num_envs=shape.episodes,
            reward_function=Watched(workload.reward, clock),
            reference=workload.language_model,
            kl="full",
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )
    model = PPO(
        CausalLMPolicy,
        env,
        n_steps=shape.response,
        batch_size=shape.episodes * shape.response // shape.minibatches,
        n_epochs=shape.epochs,
        learning_rate=LEARNING_RATE,
        ent_coef=0.0,
        gamma=1.0,
        policy_kwargs={"language_model": workload.language_model},
        device="cpu",
    )
    env.policy = model.policy
    model.learn(2**40, callback=_Laps(clock))

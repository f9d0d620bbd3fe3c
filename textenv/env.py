"""Text generation as a single Gymnasium environment."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit

from textenv.action_masks import allowed_tokens
from textenv.actions import KL, action_space, observation_space, read_actions
from textenv.episodes import EpisodeAttributes, Episodes, Granularity, Observation
from textenv.errors import RenderModeError, UsageError
from textenv.language_model import LanguageModel
from textenv.rendering import render_episode
from textenv.tasks.base import RewardFunction, Split, Task
from textenv.token_texts import shown_tokens

_ONLY = np.zeros(1, dtype=np.int64)


class TextEnv(EpisodeAttributes, gym.Env[Observation, Any]):
    """One episode at a time: a prompt is given, and each action is the next token of the response.

    An observation holds `input_ids` (P+T,) and `attention_mask` (P+T,): the prompt, left-padded so
    that the response starts at column P, and the tokens so far. The episode is `terminated` by the
    end-of-sequence token or when T tokens are there; `info["end"]` says which: "eos" or "length".

    At the end `info` also has `score` (the reward function's value, penalty included) and, where
    the task knows the truth, `gold` in [0, 1] and `utility`.

    Args:
        task: a name of `textenv.tasks.TASKS`, "module:Class", or a task.
        reward_function: scores whole responses; the task's true utility if None.
        reference: π_ref of the KL term; the task's own if None.
        beta: weight of the KL term; the task's evaluation β if None. It can be set later.
        kl: "reference": an action is a token, and pays r_t = β·log π_ref(a_t|s_t). "full": an action
            is a dictionary of `token` and `logprob`, its log-probability under the policy, and pays
            r_t = −β(log π(a_t|s_t) − log π_ref(a_t|s_t)). The score is added at the end.
        reward: "token" pays at each step; "episode" pays the sum at the end, with each token's part
            in `info["token_rewards"]` (T,).
        split: which of the task's prompts are drawn.
        missing_eos_penalty: subtracted from the score of a response that does not end by itself.
        render_mode: "ansi" returns the text so far, tokens coloured by reward; "human" prints it.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        task: str | Task = "concierge",
        *,
        reward_function: RewardFunction | None = None,
        reference: LanguageModel | None = None,
        beta: float | None = None,
        kl: KL = "reference",
        reward: Granularity = "token",
        split: Split = "train",
        missing_eos_penalty: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        if split not in get_args(Split):
            raise UsageError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise RenderModeError(f"render_mode is {render_mode!r}; it must be 'ansi', 'human' or None")
        self.episodes = Episodes(
            task,
            1,
            reward_function=reward_function,
            reference=reference,
            beta=beta,
            kl=kl,
            reward=reward,
            missing_eos_penalty=missing_eos_penalty,
        )
        self.split: Split = split
        self.render_mode = render_mode
        vocab_size = self.reference.vocab_size
        # Gymnasium types its Dict by arrays of any kind, ours by what is in it.
        self.observation_space = observation_space(self.episodes.ids.shape[1], vocab_size)  # type: ignore[assignment]
        self.action_space = action_space(vocab_size, kl)
        self._started = False
        self._end = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draws a prompt and begins an episode; there are no options."""
        if options:
            raise UsageError(f"unknown reset options {sorted(options)}; a single environment has none")
        super().reset(seed=seed)
        if self.episodes.granularity == "episode":
            _refuse_time_limit(self, self.task.response_length)
        self.episodes.begin(_ONLY, self.task.sample_prompts(self.split, 1, self.np_random))
        self._started = True
        self._end = ""
        self._show()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Appends one token to the response, and pays for it.

        Raises:
            UsageError: the action is not in the action space, or there is no running episode.
            TextenvError: the reward function failed.
        """
        if not self._started:
            raise UsageError("step was called before reset; call reset to begin an episode")
        if not self.episodes.alive[0]:
            raise UsageError(
                f"{self.episodes.describe(0)}: step was called after the end of the episode; call reset for another one"
            )
        tokens, logprobs = read_actions(action, self.kl, self.reference.vocab_size, (), _ONLY, self.episodes.describe)
        advance = self.episodes.advance(_ONLY, tokens, logprobs)
        # Numbers and words as Python's own, arrays as arrays.
        info = {name: values[0] if values.ndim > 1 else values.tolist()[0] for name, values in advance.infos.items()}
        self._end = info.get("end", "")
        self._show()
        return self._observation(), float(advance.rewards[0]), bool(advance.ended[0]), False, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which of the V tokens sb3-contrib's MaskablePPO may choose, the same ones in every state.

        Padding, all special tokens but the end-of-sequence token, and ids beyond the tokenizer's
        vocabulary are forbidden. An agent that chooses them without masks is not refused.
        """
        return allowed_tokens(self.reference)

    def render(self) -> str | None:
        """The text so far, tokens coloured by reward; returned with "ansi", printed with "human"."""
        if self.render_mode is None:
            raise UsageError("render needs a render_mode; make the environment with 'ansi' or 'human'")
        text = self._text()
        if self.render_mode == "ansi":
            return text
        print(text, flush=True)
        return None

    def _show(self) -> None:
        # Gymnasium expects "human" to show every step by itself.
        if self.render_mode == "human":
            self.render()

    def _text(self) -> str:
        if not self._started:
            return ""
        responses = self.episodes.responses(_ONLY)
        prompt = self.task.prompt_text(responses.prompts.to_lists()[0])
        tokens = shown_tokens(self.task.tokenizer, responses.to_lists()[0])
        rewards = self.episodes.token_rewards[0, : len(tokens)].tolist()
        return render_episode(prompt, tokens, rewards, f"[{self._end}]" if self._end else "")

    def _observation(self) -> Observation:
        return {name: batch[0] for name, batch in self.episodes.observation(_ONLY).items()}


def _refuse_time_limit(env: TextEnv, response_length: int) -> None:
    """Refuses a TimeLimit that would cut episodes before their only reward is paid.

    No environment is told of its wrappers, and only what `gym.make` adds is in the `spec`. So the
    calls of `TimeLimit.reset` that led to this one are looked at, and no other frame's variables.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is TimeLimit.reset.__code__:
            limit = frame.f_locals["self"]
            if limit.unwrapped is env and limit._max_episode_steps < response_length:
                raise UsageError(
                    f'with reward="episode" all is paid at the end, and a TimeLimit of {limit._max_episode_steps} '
                    f'steps cuts episodes of up to {response_length} before it; raise the limit or take reward="token"'
                )
        frame = frame.f_back

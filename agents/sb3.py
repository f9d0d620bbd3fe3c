"""stable-baselines3 on text: a policy that is a language model, its environment, and how it is judged.

    env = TextVecEnv(TextVectorEnv("exact", num_envs=64, kl="full", autoreset_mode=AutoresetMode.SAME_STEP))
    model = PPO(CausalLMPolicy, env, policy_kwargs={"language_model": env.reference}, ent_coef=0.0, gamma=1.0)
    env.policy = model.policy
    model.learn(50_000)
    save_policy(model.policy, Path("my-policy"))

The algorithms are stable-baselines3's and sb3-contrib's own. Each step encodes the whole text again, which
is T times the work of our own agents: simple and slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from agents import checkpoint
from textenv.action_masks import allowed_tokens
from textenv.decoding import right_aligned
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import positions_of
from textenv.vector_env import TextVectorEnv

try:
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
    from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; agents.sb3 needs: pip install "textenv[sb3]"', name=error.name) from error


VALUE_STEPS = 10.0
"""How much longer steps the value head takes than the rest: it begins at nothing, and there is one learning rate."""


class CausalLMFeatures(BaseFeaturesExtractor):
    """Encodes prompt and tokens so far; the features are the next token's logits and the last hidden state.

    Dropout is off: the policy that is trained is the one that samples.
    """

    def __init__(self, observation_space: spaces.Dict, language_model: LanguageModel) -> None:
        hidden_size = language_model.model.config.get_text_config().hidden_size
        super().__init__(observation_space, language_model.vocab_size + hidden_size)
        self.language_model = language_model.copy()
        self.model = self.language_model.model.train(False)

    def forward(self, observations: dict[str, Tensor]) -> Float[Tensor, "N V+H"]:
        """Features of N observations, whose ids stable-baselines3 gives as floating-point numbers."""
        ids, mask = observations["input_ids"].long(), observations["attention_mask"].bool()
        rows = right_aligned(ids, mask)
        # TRPO differentiates twice, which fused attention cannot.
        with sdpa_kernel(SDPBackend.MATH):
            output = self.model(
                input_ids=rows.ids,
                attention_mask=rows.mask.long(),
                position_ids=positions_of(rows.mask),
                use_cache=False,
                output_hidden_states=True,
                logits_to_keep=1,
            )
        return torch.cat([output.logits[:, -1], output.hidden_states[-1][:, -1]], dim=1).float()

    def train(self, mode: bool = True) -> CausalLMFeatures:
        """Leaves the model in evaluation mode."""
        return super().train(False)


class _LogitsAndState(nn.Module):
    """Stands where stable-baselines3 has its perceptrons: the logits to the actor, the state to the critic."""

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = vocab_size, hidden_size

    def forward(self, features: Float[Tensor, "N V+H"]) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N H"]]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Float[Tensor, "N V+H"]) -> Float[Tensor, "N V"]:
        return features[:, : self.latent_dim_pi]

    def forward_critic(self, features: Float[Tensor, "N V+H"]) -> Float[Tensor, "N H"]:
        return VALUE_STEPS * features[:, self.latent_dim_pi :]


class _CausalLM:
    """What makes an actor-critic of stable-baselines3's a language model with a value head that begins at 0."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        *,
        language_model: LanguageModel,
        **arguments: Any,
    ) -> None:
        # mypy takes the class behind this one for `object`; in every policy it is an actor-critic.
        super().__init__(
            observation_space,  # type: ignore[call-arg]  # As said.
            action_space,
            lr_schedule,
            ortho_init=False,
            features_extractor_class=CausalLMFeatures,
            features_extractor_kwargs={"language_model": language_model},
            **arguments,
        )

    def _build(self, lr_schedule: Any) -> None:
        _build_heads(self, lr_schedule)


def _build_heads(policy: Any, lr_schedule: Any) -> None:
    vocab_size = int(policy.action_space.n)
    policy.mlp_extractor = _LogitsAndState(vocab_size, policy.features_dim - vocab_size)
    policy.action_net = nn.Identity()
    policy.value_net = nn.utils.skip_init(nn.Linear, policy.mlp_extractor.latent_dim_vf, 1)
    for weights in policy.value_net.parameters():
        nn.init.zeros_(weights)
    policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)


class CausalLMPolicy(_CausalLM, ActorCriticPolicy):
    """An actor-critic for PPO, A2C and TRPO whose body is a copy of a language model.

    It begins with the model's own distribution over the next token at temperature 1, exactly.

    TRPO keeps a second backward pass for each of the model's weight tensors: on Concierge 48 states a rollout took
    3 GB, and 192 more than 16 GB.

    Args:
        observation_space: of the environment.
        action_space: of the environment: a token.
        lr_schedule: the learning rate by the progress that remains, 1 to 0.
        language_model: what it begins as; in `policy_kwargs`.
        arguments: more of `ActorCriticPolicy`'s, such as `optimizer_kwargs`.
    """

    @property
    def language_model(self) -> LanguageModel:
        """The model whose tokens are the policy's actions, by which `evaluate` decodes with a cache."""
        body: Any = self.features_extractor
        language_model: LanguageModel = body.language_model
        return language_model


class MaskableCausalLMPolicy(_CausalLM, MaskableActorCriticPolicy):
    """The same for MaskablePPO, which never chooses padding or special tokens."""


class TextVecEnv(VecEnv):
    """A `TextVectorEnv` as stable-baselines3's `VecEnv`, whose action is a token alone.

    With `kl="full"` the environment is to be told each token's log-probability. The adapter asks `policy`
    for it, in the state in which the token was chosen and of the token that was chosen, one more pass
    through the policy a step. So it is exact whatever was asked of the policy in between, and right in
    `evaluate_policy` too. It is that of the distribution that the policy samples from.

    Args:
        env: made with `autoreset_mode=AutoresetMode.SAME_STEP`, as stable-baselines3 expects resets.

    Attributes:
        policy: set it to `model.policy` once the model is made.
    """

    def __init__(self, env: TextVectorEnv) -> None:
        if env.autoreset_mode != AutoresetMode.SAME_STEP:
            raise UsageError(
                f"stable-baselines3 wants new episodes in the step that ends the old ones, and this environment has "
                f"autoreset_mode={env.autoreset_mode.value!r}; make it with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        self.env = env
        self.policy: BasePolicy | None = None
        self._observation: dict[str, npt.NDArray[Any]] = {}
        self._actions: Any = None
        super().__init__(env.num_envs, env.single_observation_space, spaces.Discrete(env.reference.vocab_size))

    @property
    def reference(self) -> LanguageModel:
        """π_ref of the KL term, which a policy begins as."""
        return self.env.reference

    def action_masks(self) -> Bool[npt.NDArray[Any], " V"]:
        """Which tokens MaskablePPO may choose in any environment; see `TextEnv.action_masks`."""
        return allowed_tokens(self.reference)

    def reset(self) -> dict[str, npt.NDArray[Any]]:
        """Begins new episodes with the seeds that `seed` was told, which are then forgotten."""
        if any(self._options):
            raise UsageError(f"reset options {self._options[0]} were set; environments of stable-baselines3 have none")
        self._observation, _ = self.env.reset(seed=self._seeds)
        self._reset_seeds()
        return self._observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Remembers the tokens; with `kl="full"` their log-probabilities too."""
        if self.env.kl == "reference":
            self._actions = actions
        else:
            self._actions = {"token": actions, "logprob": self._logprobs(actions)}

    def step_wait(
        self,
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Appends the tokens; where an episode ends, `terminal_observation` has what it ended with."""
        self._observation, rewards, terminated, truncated, collected = self.env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated | truncated):
            final = collected["final_info"]
            infos[row] = {name: values[row] for name, values in final.items() if not name.startswith("_")}
            infos[row]["terminal_observation"] = collected["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return self._observation, rewards, terminated | truncated, infos

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute, which all environments share, once for each of them."""
        return [self._attribute(attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute, such as `beta`, of all environments.

        Raises:
            UsageError: only some of them were meant.
        """
        if len(set(self._rows(indices))) < self.num_envs:
            raise UsageError(f"{attr_name!r} cannot be set for some environments only, since they share it")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls a method of the vector environment once, and gives the result for each environment."""
        return [self._attribute(method_name)(*method_args, **method_kwargs)] * len(self._rows(indices))

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False] * len(self._rows(indices))

    def _attribute(self, name: str) -> Any:
        return getattr(self if name == "action_masks" else self.env, name)

    def _rows(self, indices: int | Iterable[int] | None) -> list[int]:
        return list(self._get_indices(indices))

    @torch.no_grad()
    def _logprobs(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self.policy is None:
            raise UsageError(
                'with kl="full" the environment pays by the policy\'s log-probabilities and has no policy to ask; '
                "set env.policy = model.policy once the model is made"
            )
        logprobs = token_logprobs(self.policy, self._observation, self.action_masks())
        return logprobs.gather(1, torch.as_tensor(actions)[:, None])[:, 0].numpy()


class SB3Agent:
    """A trained policy of stable-baselines3 or sb3-contrib as `textenv.evaluation.evaluate` takes it.

    Args:
        policy: `model.policy`.
        action_masks: what a maskable policy may choose, (V,); `env.action_masks()`.
    """

    def __init__(self, policy: BasePolicy, action_masks: Bool[npt.NDArray[Any], " V"] | None = None) -> None:
        self.policy = policy
        self.action_masks = action_masks

    @torch.no_grad()
    def logprobs(self, observation: Mapping[str, npt.NDArray[Any]]) -> Float[Tensor, "N V"]:
        """Log-probabilities of the next token; of a policy without any, such as DQN's, all on its greedy token."""
        return token_logprobs(self.policy, observation, self.action_masks)


def token_logprobs(
    policy: BasePolicy, observation: Mapping[str, npt.NDArray[Any]], action_masks: Any = None
) -> Float[Tensor, "N V"]:
    """The distribution that a policy draws the next token from, as log-probabilities.

    Args:
        policy: an actor-critic, or one that only has a best action.
        observation: N of the environment's.
        action_masks: which tokens it may choose, (V,); only a maskable policy looks at them.
    """
    assert isinstance(policy.action_space, spaces.Discrete)
    rows, vocab_size = len(observation["input_ids"]), int(policy.action_space.n)
    tensors, _ = policy.obs_to_tensor(dict(observation))
    if isinstance(policy, MaskableActorCriticPolicy):
        masks = None if action_masks is None else np.tile(action_masks, (rows, 1))
        distribution: Any = policy.get_distribution(tensors, masks).distribution
    elif isinstance(policy, ActorCriticPolicy):
        distribution = policy.get_distribution(tensors).distribution
    else:
        actions, _ = policy.predict(dict(observation), deterministic=True)
        return torch.full((rows, vocab_size), -torch.inf).scatter(1, torch.as_tensor(actions)[:, None], 0.0)
    logprobs: Tensor = distribution.logits
    return logprobs.cpu()


def save_policy(policy: BasePolicy, path: Path) -> None:
    """Writes the weights to a folder as safetensors.

    Stable-baselines3's own `save` keeps more, and its `load` runs code that it finds in the file.
    """
    scalars = {"agent": "sb3", "policy": type(policy).__name__}
    checkpoint.save(path, checkpoint.Checkpoint(checkpoint.module_tensors(policy, "policy"), scalars))


def load_policy(policy: BasePolicy, path: Path) -> None:
    """Gives a policy the weights that `save_policy` wrote.

    Args:
        policy: made as the saved one was.
        path: the folder.

    Raises:
        UsageError: the folder is none, or holds the weights of another policy.
    """
    tensors, scalars = checkpoint.load(path)
    expected = {"agent": "sb3", "policy": type(policy).__name__}
    if scalars != expected:
        raise UsageError(f"{path} holds {scalars}, expected {expected}")
    checkpoint.restore_module(policy, "policy", tensors)

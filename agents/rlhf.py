"""The whole of RLHF in one loop: reference → compare → reward model → reinforce → evaluate.

Each stage leaves its results in the run folder and is marked when it is finished, so a run that was
stopped goes on where it was; a stage that was cut off is done again and gives the same.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from agents import REWARDS, load_agent
from agents.outcome import Judge, ReferencePolicy, finite, sample_rows
from agents.run_folder import Row, RunFolder
from agents.seeds import Seeds
from agents.setting import imported, load_own_prompts, load_task
from reward_models.comparisons import LabelBudget, compare
from reward_models.fitting import RewardModelConfig, fit
from reward_models.raters import load_rater
from reward_models.reward_model import RewardModel
from textenv import rewards
from textenv.errors import TextenvError, UsageError, unknown_name
from textenv.evaluation import evaluate
from textenv.files import write_atomically
from textenv.language_model import LanguageModel
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.tasks.base import RewardFunction, Task, prompts_of
from textenv.vader import VaderReward
from textenv.vector_env import TextVectorEnv

MOST_CHECKPOINTING = 0.05
"""Share of the time that writing checkpoints may take; large models are written less often."""

PROMPTS_AT_ONCE = 64
"""Prompts that the reference answers at a time; bounds the memory of the cache."""

NORMALISING_PROMPTS = 512
"""Prompts whose samples set the reward model's mean and deviation."""

Numbers = Mapping[str, float]
Progress = Callable[[int, int, Numbers], None]


@dataclasses.dataclass(frozen=True)
class RLHFConfig:
    """What a run is; a run's result depends on nothing else but the versions and the machine."""

    task: str | None = None
    """Task to learn (see `textenv list`); None is concierge, or text where prompts are given."""
    agent: str = "ppo"
    """What learns (see `textenv list`)."""
    reward: str = "learned"
    """learned, gold, vader, a reward model's folder, or module:callable."""
    rater: str = "bradley-terry"
    """Who compares responses for a learned reward (see `textenv list`)."""
    model: str | None = None
    """Reference and starting point: a model's name or folder; None is the task's own."""
    prompts: Path | None = None
    """File of your own prompts, text or JSONL with a `prompt` field; makes the task text."""
    chat: bool = False
    """Put each prompt of your own into the model's chat template, as a user's message."""
    response_length: int | None = None
    """Most tokens of a response to prompts of your own; None is 24. Other tasks have their own."""
    labels: int = 4096
    """Comparisons that the rater is asked for; those held out to judge the reward model are among them."""
    tokens: int = 40_000
    """Response tokens that the agent generates and learns from."""
    seed: int = 0
    """Fixes prompts, raters, learning and evaluation noise."""
    beta: float | None = None
    """Weight of the KL in training; None is the task's, by which results are always judged."""
    responses_per_prompt: int = 4
    """Responses sampled to each prompt for the rater to compare."""
    labels_per_prompt: int = 2
    """Comparisons asked for each prompt; more of them on fewer prompts cost less sampling."""
    test_prompts: int = 64
    """Test prompts on which the policy is judged, before and after."""
    test_samples: int = 32
    """Responses to each test prompt; the optimum of a learned reward is estimated from them and the reference's."""
    algorithm: Any = None
    """The agent's settings; None is the agent's defaults."""
    reward_model: RewardModelConfig = dataclasses.field(default_factory=RewardModelConfig)
    """The reward model's settings."""

    @property
    def task_name(self) -> str:
        """The task that is meant."""
        return self.task or ("concierge" if self.prompts is None else "text")

    @property
    def learns_reward(self) -> bool:
        """Whether labels are bought and a reward model is fitted."""
        return self.reward == "learned"

    def to_json(self) -> dict[str, Any]:
        """The config under the names of the command line's flags, the agent's settings among the others."""
        values = dataclasses.asdict(self)
        values |= values.pop("algorithm")
        return values | {"prompts": None if self.prompts is None else str(self.prompts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RLHFConfig:
        """The config that `to_json` wrote.

        Raises:
            UsageError: it holds something that this version does not know.
        """
        config_class = load_agent(values["agent"]).config_class
        agents_own = {field.name for field in dataclasses.fields(config_class)}
        loops = {key: value for key, value in values.items() if key not in agents_own}
        prompts = None if loops["prompts"] is None else Path(loops["prompts"])
        try:
            algorithm = config_class(**{key: value for key, value in values.items() if key in agents_own})
            reward_model = RewardModelConfig(**loops["reward_model"])
            return cls(**loops | {"prompts": prompts, "reward_model": reward_model, "algorithm": algorithm})
        except TypeError as error:
            raise UsageError(f"the run's config.json does not fit this version: {error}") from None


class Listener(Protocol):
    """Who is told how a run goes, and may stop it."""

    def progress(self, stage: str, done: int, total: int, numbers: Numbers) -> None:
        """A stage has done so much of its total; 0 where it begins. `numbers` say how it goes."""

    def end(self, stage: str, seconds: float) -> None:
        """A stage is finished."""

    def stopping(self) -> bool:
        """Whether the run is asked to stop after the current step."""


class Stopped(TextenvError):
    """The run was asked to stop, and can go on."""

    exit_code = 130


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run is made of, checked and loaded."""

    config: RLHFConfig
    task: Task
    reference: LanguageModel
    reward: RewardFunction | None
    """None: it is still to be learned."""


def prepare(config: RLHFConfig) -> Setting:
    """Checks everything that was asked and loads what it names, before anything is run.

    Raises:
        UsageError: a name is not known, a number out of its range, or two things do not go together.
    """
    agent_class = load_agent(config.agent)
    config_class = agent_class.config_class
    config = dataclasses.replace(config, task=config.task_name, algorithm=config.algorithm or config_class())
    if not isinstance(config.algorithm, config_class):
        raise UsageError(f"{config.agent} takes {config_class.__name__}, got {type(config.algorithm).__name__}")
    for field, least in (("labels", 2), ("labels_per_prompt", 1), ("responses_per_prompt", 2), ("tokens", 1),
                         ("seed", 0), ("test_prompts", 2), ("test_samples", 1)):  # fmt: skip
        if getattr(config, field) < least:
            raise UsageError(f"--{field.replace('_', '-')} is {getattr(config, field)}, expected {least} or more")
    if config.beta is not None and not 0 <= config.beta < math.inf:
        raise UsageError(f"--beta is {config.beta}, expected a number from 0 up")
    load_rater(config.rater)
    if not (config.reward in REWARDS or ":" in config.reward or Path(config.reward).is_dir()):
        unknown = unknown_name("reward", config.reward, REWARDS)
        raise UsageError(f"{unknown} A reward model's folder or module:callable works too.")
    task, reference = _task_and_reference(config)
    if not config.learns_reward:
        return Setting(config, task, reference, _named_reward(config.reward, task, reference))
    if not task.attribute_names:
        raise UsageError(
            f"the task {task.name!r} has no known truth, so no simulated rater can compare its responses; "
            "give --reward vader, a reward model's folder or module:callable"
        )
    pairs = config.responses_per_prompt * (config.responses_per_prompt - 1) // 2
    if config.labels_per_prompt > pairs:
        raise UsageError(
            f"--labels-per-prompt is {config.labels_per_prompt}, but {config.responses_per_prompt} responses to a "
            f"prompt make {pairs} pairs; give more --responses-per-prompt"
        )
    return Setting(config, task, reference, None)


def _task_and_reference(config: RLHFConfig) -> tuple[Task, LanguageModel]:
    if config.task_name == "text":
        return load_own_prompts(config.prompts, config.model, config.response_length, chat=config.chat)
    given = {"prompts": config.prompts is not None, "response_length": config.response_length is not None,
             "chat": config.chat}  # fmt: skip
    for name in (name for name, is_given in given.items() if is_given):
        raise UsageError(
            f"--{name.replace('_', '-')} is for prompts of your own, but --task is {config.task}; leave one of them out"
        )
    return load_task(config.task_name, config.model)


def _named_reward(name: str, task: Task, reference: LanguageModel) -> RewardFunction:
    if name == "gold":
        if not task.attribute_names:
            raise UsageError(f"the task {task.name!r} has no gold score; give another --reward")
        return rewards.GoldReward(task)
    if name == "vader":
        return VaderReward(reference.tokenizer)
    if Path(name).is_dir():
        return RewardModel.load(Path(name), reference.tokenizer)
    return rewards.PythonReward(imported(name), reference.tokenizer)


class Loop:
    """One run of a setting in its folder."""

    def __init__(
        self, setting: Setting, folder: RunFolder, listener: Listener, checkpoint_seconds: float = 10.0
    ) -> None:
        """Takes up the run in `folder`, new or not; a kill loses about `checkpoint_seconds` of learning."""
        self.checkpoint_seconds = checkpoint_seconds
        self.config = setting.config
        self.setting = setting
        self.folder = folder
        self.listener = listener
        self.seeds = Seeds(setting.config.seed)

    def run(self) -> dict[str, Any]:
        """Runs what is not yet finished and returns the summary.

        Raises:
            Stopped: the listener asked for it; what was done is kept.
            TextenvError: a number is not finite, or the disk is full; the last checkpoint is kept.
        """
        if self.folder.summary is not None:
            return self.folder.summary
        reward = self.setting.reward or self.learn_reward()
        agent = self.reinforce(reward)
        return self.evaluate(agent, reward)

    def learn_reward(self) -> RewardModel:
        """The reward model, learned from the rater's comparisons of the reference's responses."""
        path = self.folder.path / "reward_model"
        if not self.folder.finished("reward_model"):
            samples = self.sample_reference()
            preferences = self.compare(samples)
            self.fit_reward_model(samples, preferences, path)
        return RewardModel.load(path, self.setting.reference.tokenizer)

    def sample_reference(self) -> Responses:
        """Responses of the reference to training prompts, for the rater to compare."""
        config, task, reference = self.config, self.setting.task, self.setting.reference
        file = self.folder.path / "reference_samples.safetensors"
        if not self.folder.finished("reference"):
            count = math.ceil(config.labels / config.labels_per_prompt)
            prompts = prompts_of(task, task.sample_prompts("train", count, self.seeds.numpy("comparison prompts")))
            generator = self.seeds.torch("comparison responses")
            responses: list[list[int]] = []
            with self._stage("reference") as progress:
                for rows in torch.arange(count).split(PROMPTS_AT_ONCE):
                    sample = reference.sample(
                        prompts[rows],
                        group_size=config.responses_per_prompt,
                        max_tokens=task.response_length,
                        generator=generator,
                    )
                    responses += sample.responses.to_lists()
                    progress(int(rows[-1]) + 1, count, {})
                _save_responses(file, Responses.from_lists(prompts, responses, reference.pad_id))
        return _load_responses(file)

    def compare(self, samples: Responses) -> Preferences:
        """The rater's answers, for as many labels as the budget has."""
        file = self.folder.path / "preferences.parquet"
        reference = self.setting.reference
        if not self.folder.finished("compare"):
            gold = self.setting.task.gold(samples)
            assert gold is not None, "prepare() refuses tasks without truth"
            with self._stage("compare") as progress:
                preferences = compare(
                    samples,
                    gold.utility,
                    load_rater(self.config.rater),
                    LabelBudget(self.config.labels),
                    self.seeds.numpy("rater"),
                )
                progress(len(preferences), self.config.labels, {})
                preferences.save(file, reference.tokenizer)
        return Preferences.load(file, reference.pad_id)

    def fit_reward_model(self, samples: Responses, preferences: Preferences, path: Path) -> None:
        """Fits the reward model and writes it with its calibration."""
        with self._stage("reward_model") as progress:
            # The scores' scale is set before the fit, so that it starts from differences of about 1, and after it.
            normaliser = samples.groups(torch.arange(min(len(samples.prompts), NORMALISING_PROMPTS)))
            model = RewardModel.from_language_model(self.setting.reference, self.seeds.torch("reward head"))
            model.normalise(normaliser)
            result = fit(model, preferences, self.config.reward_model, self.seeds.torch("reward model"), progress)
            model.normalise(normaliser)
            model.save(path)
            self.folder.write_json("reward_model_calibration.json", result.to_dict() | {"labels": len(preferences)})

    def reinforce(self, reward: RewardFunction) -> Any:
        """The agent, after it has learned from as many tokens as were asked for."""
        config, task, folder = self.config, self.setting.task, self.folder
        env = TextVectorEnv(
            task,
            num_envs=1,
            reward_function=reward,
            reference=self.setting.reference,
            beta=task.beta if config.beta is None else config.beta,
            kl="full",
        )
        agent_class = load_agent(config.agent)
        checkpoint = folder.latest_checkpoint()
        if checkpoint is None:
            agent = agent_class(env, config.algorithm, self.seeds.integer("agent"))
            folder.save_checkpoint(agent.num_timesteps, agent.save, [])
        else:
            agent = agent_class.load(checkpoint, env)
        if folder.finished("reinforce"):
            return agent

        earlier = folder.metrics()
        before = earlier[-1]["seconds"] if earlier else 0.0
        start = time.perf_counter()
        next_checkpoint = start + self.checkpoint_seconds
        rows: list[Row] = []

        def after_iteration(agent: Any, numbers: dict[str, float]) -> bool:
            nonlocal next_checkpoint
            bad = [name for name, value in numbers.items() if not math.isfinite(value)]
            if bad:
                raise TextenvError(f"{', '.join(bad)} went bad: {numbers[bad[0]]} after {agent.num_timesteps} tokens.")
            now = time.perf_counter()
            rows.append({"timesteps": agent.num_timesteps, "seconds": before + now - start, **numbers})
            self.listener.progress("reinforce", agent.num_timesteps, config.tokens, numbers)
            stopping = self.listener.stopping()
            if stopping or now > next_checkpoint:
                folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
                rows.clear()
                written = time.perf_counter()
                next_checkpoint = written + max(self.checkpoint_seconds, (written - now) / MOST_CHECKPOINTING)
            return not stopping

        self.listener.progress("reinforce", agent.num_timesteps, config.tokens, {})
        try:
            agent.learn(config.tokens, after_iteration)
        except TextenvError as error:
            raise TextenvError(f"{error} The last good checkpoint is {folder.checkpoints()[-1]}.") from error
        if agent.num_timesteps < config.tokens:
            raise Stopped("the run was stopped")
        folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
        seconds = before + time.perf_counter() - start
        folder.finish_stage("reinforce", seconds=seconds)
        self.listener.end("reinforce", seconds)
        return agent

    def evaluate(self, agent: Any, reward: RewardFunction) -> dict[str, Any]:
        """Judges the reference and the policy on the same test prompts with the same noise."""
        config, task, reference = self.config, self.setting.task, self.setting.reference
        prompts = prompts_of(task, task.fixed_prompts("test", config.test_prompts))
        evaluations = []
        with self._stage("evaluate") as progress:
            for part, policy in enumerate((ReferencePolicy(reference), agent)):

                def half(done: int, total: int, numbers: Numbers, part: int = part) -> None:
                    progress(part * total + done, 2 * total, numbers)

                evaluations.append(
                    evaluate(
                        policy,
                        task,
                        reference,
                        reward,
                        prompts=prompts,
                        samples_per_prompt=config.test_samples,
                        generator=self.seeds.torch("evaluation"),
                        progress=half,
                    )
                )
            before, after = evaluations
            self.folder.write_rows("samples.parquet", sample_rows(task, before, after))
            results = Judge(task, reference, reward, self.seeds).results(agent, before, after)
        asked = {
            "task": config.task_name,
            "agent": config.agent,
            "reward": config.reward,
            "rater": config.rater if config.learns_reward else None,
            "model": reference.name,
            "seed": config.seed,
        }
        judged = self.folder.read_json("reward_model_calibration.json") or {}
        learned = {
            "reward_model_accuracy": judged.get("accuracy_true"),
            "reward_model_accuracy_labels": judged.get("accuracy_labels"),
            "reward_model_ceiling_labels": judged.get("ceiling_labels"),
            "labels": judged.get("labels", 0),
        }
        summary = finite(asked | results | learned | {"tokens": agent.num_timesteps} | self.folder.costs())
        self.folder.write_json("summary.json", summary)
        return summary

    @contextmanager
    def _stage(self, name: str) -> Iterator[Progress]:
        """Times a stage, hands on its progress, stops it when asked to, and marks it as finished."""

        def progress(done: int, total: int, numbers: Numbers) -> None:
            self.listener.progress(name, done, total, numbers)
            if self.listener.stopping():
                raise Stopped("the run was stopped")

        start = time.perf_counter()
        self.listener.progress(name, 0, 1, {})
        yield progress
        seconds = time.perf_counter() - start
        self.folder.finish_stage(name, seconds=seconds)
        self.listener.end(name, seconds)


def _save_responses(file: Path, responses: Responses) -> None:
    tensors = {
        "prompt_ids": responses.prompts.ids,
        "prompt_mask": responses.prompts.mask,
        "ids": responses.ids,
        "mask": responses.mask,
    }
    write_atomically(file, lambda temporary: save_file(tensors, temporary))


def _load_responses(file: Path) -> Responses:
    tensors = load_file(file)
    return Responses(Prompts(tensors["prompt_ids"], tensors["prompt_mask"]), tensors["ids"], tensors["mask"])

"""The whole of RLHF in one loop: reference → compare → reward model → reinforce → evaluate.

Each stage leaves its results in the run folder and is marked when it is finished, so a run that was
stopped goes on where it was; a stage that was cut off is done again and gives the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agents import load_agent
from agents.base import learns_from
from agents.kl_control import kl_control
from agents.listener import Listener, Stopped
from agents.outcome import Judge, ReferencePolicy, finite, sample_rows
from agents.refusals import check_batch_size, check_truth
from agents.run_folder import RunFolder
from agents.seeds import Seeds
from agents.setting import Setting, completed, load_reward, load_task
from agents.training import Training
from reward_models.asking import Asking, Exclusion, Reliability
from reward_models.campaign import Campaign, Plan, check_preferences, check_raters
from reward_models.crowd_feedback import Form
from reward_models.fitting import RewardModelConfig
from reward_models.raters import RATERS, load_rater
from reward_models.raters.population import Recruiting
from reward_models.raters.presets import is_file
from reward_models.reward_model import RewardModel
from reward_models.schedules import Order
from textenv import plugins
from textenv.demonstrations import Demonstrations, best_demonstrations
from textenv.errors import UsageError
from textenv.evaluation import evaluate
from textenv.preferences import Preferences
from textenv.progress import Numbers, Progress
from textenv.responses import Responses, load_responses, save_responses
from textenv.rewards import GoldReward
from textenv.tasks.base import RewardFunction, prompts_of
from textenv.vector_env import TextVectorEnv

PROMPTS_AT_ONCE = 64
"""Prompts that the reference answers at a time; bounds the memory of the cache."""


@dataclasses.dataclass(frozen=True)
class RLHFConfig:
    """What a run is; a run's result depends on nothing else but the versions and the machine."""

    task: str | None = None
    """Task to learn (see `textenv list`), or module:Class; None is concierge, or text where prompts are given."""
    agent: str = "ppo"
    """What learns (see `textenv list`), or module:Class."""
    reward: str = "learned"
    """learned, gold, vader, a reward model's folder, or module:callable. Agents that learn from the rater's comparisons
    themselves, or from demonstrations, take none: for them it stays learned."""
    rater: str = "bradley-terry"
    """Who compares responses for a learned reward (see `textenv list`), a population's file, or module:Class."""
    raters_per_item: int = 1
    """Raters who answer each comparison."""
    consensus: str = "mean"
    """What their answers come to: mean, majority, dawid-skene, crowd-bt, gold (by the gold questions alone),
    crowd-bt-scores (with a score for each response), or groups (the mean of the groups found among the raters)."""
    gold_rate: float = 0.0
    """Share of the comparisons whose right answer is known, by which raters are judged; they cost labels too."""
    form: Form = "pairwise"
    """What an answer is: which of two responses is better, the order of all to a prompt, thumbs up or down, or a score
    from 1 to 7. Each costs one label."""
    recruiting: Recruiting | None = None
    """The rule by which raters come (uniform, stratified, convenience, self-selected); None is their population's."""
    order: Order = "random"
    """Which response is shown first: drawn, either one as often (balanced), or always the same (fixed)."""
    repeat_rate: float = 0.0
    """Share of the questions that the same rater gets again in the other order, for audits; they cost labels too."""
    training_questions: int = 0
    """Gold questions by which each rater is trained before the work; they cost labels too."""
    exclude: Exclusion = "none"
    """Raters whose answers are left out: whom gold questions, or an audit, tell to be of little use."""
    reliability: Reliability = "none"
    """The reward model learns from each answer, weighed by its rater's reliability by this method; none: consensus."""
    demonstration_share: float = 0.0
    """Share of all comparisons that are of a demonstration and a response of the reference, and need no rater."""
    self_play_share: float = 0.0
    """Share of the labels, up to a half, that are spent on the best of 8 by a first reward model against the reference;
    from these and the others the reward model is learned anew."""
    preferences: Path | None = None
    """Comparisons to learn from in place of asking raters: a preferences file, as of a run folder or of `textenv raters
    import`."""
    model: str | None = None
    """Reference and starting point: a model's name or folder; None is the task's own."""
    prompts: Path | None = None
    """Your own prompts: text, JSONL or Parquet with a `prompt` column, or a saved dataset; makes the task text."""
    prompt_length: int | None = None
    """Most tokens of a prompt of your own; None is those of the longest one. Other tasks have their own."""
    truncate_prompts: bool = False
    """Cut longer prompts of your own at their left; otherwise they are refused."""
    chat: bool = False
    """Put each prompt of your own into the model's chat template, as a user's message."""
    response_length: int | None = None
    """Most tokens of a response to prompts of your own; None is 24. Other tasks have their own."""
    labels: int = 4096
    """Answers that the raters are asked for; those held out to judge the reward model are among them."""
    tokens: int = 40_000
    """Response tokens that the agent generates and learns from."""
    seed: int = 0
    """Fixes prompts, raters, learning and evaluation noise."""
    beta: float | None = None
    """Weight of the KL in training; None is the task's, by which results are always judged, or twice that while an
    agent follows a learned reward."""
    max_kl: float | None = None
    """Nats an episode between policy and reference at which training is stopped; None is where the reference finds
    tokens drawn blindly likelier than the policy's, with beta above 0."""
    responses_per_prompt: int = 4
    """Responses sampled to each prompt for the rater to compare."""
    demonstrations: int = 512
    """Prompts with a response worth imitating, for agents that learn from such: the best by the truth of 64 of the
    reference's."""
    labels_per_prompt: int = 2
    """Comparisons asked for each prompt; more of them on fewer prompts cost less sampling."""
    test_prompts: int = 64
    """Test prompts on which the policy is judged, before and after; all there are where the task has fewer."""
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
    def plan(self) -> Plan:
        """What raters are asked, and what is made of it."""
        asking = Asking(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Asking)})
        own = {field.name for field in dataclasses.fields(Plan)} - {"asking"}
        return Plan(asking=asking, **{name: getattr(self, name) for name in own})

    @property
    def buys_labels(self) -> bool:
        """Whether a rater is asked, for a reward model or for the agent itself."""
        return self.learns_preferences and self.preferences is None

    @property
    def learns_preferences(self) -> bool:
        """Whether comparisons are learned from, by a reward model or by the agent itself."""
        return self.reward == "learned" and learns_from(load_agent(self.agent)) != "demonstrations"

    def to_json(self) -> dict[str, Any]:
        """The config under the names of the command line's flags, the agent's settings among the others."""
        values = dataclasses.asdict(self)
        values |= values.pop("algorithm")
        files = {name: getattr(self, name) for name in ("prompts", "preferences")}
        return values | {name: None if file is None else str(file) for name, file in files.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RLHFConfig:
        """The config that `to_json` wrote.

        Raises:
            UsageError: it holds something that this version does not know.
        """
        loops = {field.name for field in dataclasses.fields(cls)} - {"algorithm"}
        try:
            config_class = load_agent(values["agent"]).config_class
            agents = {field.name for field in dataclasses.fields(config_class)}
            if values.keys() != loops | agents:
                raise TypeError(f"{', '.join(sorted(values.keys() ^ (loops | agents)))} missing or unknown")
            changed = {
                **{name: None if values[name] is None else Path(values[name]) for name in ("prompts", "preferences")},
                "reward_model": RewardModelConfig(**values["reward_model"]),
                "algorithm": config_class(**{name: values[name] for name in agents}),
            }
            return cls(**{name: values[name] for name in loops} | changed)
        except (KeyError, TypeError) as error:
            raise UsageError(f"the run's config.json does not fit this version: {error}") from None


def prepare(config: RLHFConfig) -> Setting:
    """Checks everything that was asked and loads what it names, before anything is run.

    Raises:
        UsageError: a name is not known, a number out of its range, or two things do not go together.
    """
    config = completed(config)
    if is_file(config.rater):
        config = dataclasses.replace(config, rater=str(Path(config.rater).absolute()))
    rater = load_rater(config.rater)
    rater_code: Sequence[Path] = ()
    if config.buys_labels:
        own_file = is_file(config.rater)
        rater_code = [Path(config.rater)] if own_file else plugins.source_files("rater", config.rater, RATERS)
    task, reference = load_task(config)
    check_task = getattr(load_agent(config.agent), "check_task", None)
    if check_task is not None:
        check_task(config.algorithm, task, reference)
    reward: RewardFunction | None = None
    if config.reward == "learned":
        if config.preferences is None or learns_from(load_agent(config.agent)) != "rewards":
            check_truth(config, task)
        if config.preferences is not None:
            check_preferences(config.preferences, reference)
        if config.buys_labels:
            check_raters(config.plan, rater, task, Seeds(config.seed))
        if learns_from(load_agent(config.agent)) != "rewards":
            reward = GoldReward(task)  # It learns from no reward, and is judged by the truth.
    elif Path(config.reward).is_absolute():  # As `completed` makes folders.
        reward = RewardModel.load(Path(config.reward), reference.tokenizer)
    else:
        reward = load_reward(config.reward, task, reference)
    setting = Setting(config, task, reference, reward, rater_code)
    check_batch_size(config, reference)
    # The agent would refuse these too, but only once the reward is learned.
    needs_beta = setting.learns_from == "preferences" or getattr(load_agent(config.agent), "needs_beta", False)
    if needs_beta and setting.beta <= 0:
        raise UsageError(
            f"--beta is {setting.beta:g}, by which the agent {config.agent!r} weighs what it learns from; give one "
            "above 0"
        )
    kl_control(getattr(config.algorithm, "kl_target", None), setting.beta)
    return setting


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
        self.campaign = Campaign(setting.config.plan, setting.task, setting.reference, folder, self.seeds, self._stage)

    def run(self) -> dict[str, Any]:
        """Runs what is not yet finished and returns the summary.

        Raises:
            Stopped: the listener asked for it; what was done is kept.
            TextenvError: a number is not finite, or the disk is full; the last checkpoint is kept.
        """
        if self.folder.summary is not None:
            return self.folder.summary
        data: Preferences | Demonstrations | None = None
        if self.setting.learns_from == "preferences":
            data = self.compare(self.sample_reference())
        elif self.setting.learns_from == "demonstrations":
            data = self.demonstrate()
        reward = self.setting.reward or self.learn_reward()
        agent = self.reinforce(reward, data)
        return self.evaluate(agent, reward)

    def compare(self, samples: Responses) -> Preferences:
        """The raters' answers, for as many labels as the budget has."""
        return self.campaign.compare(samples)

    def learn_reward(self) -> RewardModel:
        """The reward model, learned from what the raters say of the reference's responses."""
        path = self.folder.path / "reward_model"
        if not self.folder.finished("reward_model"):
            self.campaign.learn(self.sample_reference(), path)
        return RewardModel.load(path, self.setting.reference.tokenizer)

    def sample_reference(self) -> Responses:
        """Responses of the reference to training prompts, for the rater to compare."""
        config, task, reference = self.config, self.setting.task, self.setting.reference
        file = self.folder.path / "reference_samples.safetensors"
        if not self.folder.finished("reference"):
            count = config.plan.prompts
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
                save_responses(file, Responses.from_lists(prompts, responses, reference.pad_id))
        return load_responses(file)

    def demonstrate(self) -> Demonstrations:
        """The best of the reference's responses to training prompts, by the truth."""
        file = self.folder.path / "demonstrations.parquet"
        task, reference = self.setting.task, self.setting.reference
        if not self.folder.finished("demonstrate"):
            rng = self.seeds.numpy("demonstration prompts")
            prompts = prompts_of(task, task.sample_prompts("train", self.config.demonstrations, rng))
            with self._stage("demonstrate") as progress:
                generator = self.seeds.torch("demonstration responses")
                best_demonstrations(task, reference, prompts, generator, progress).save(file, reference.tokenizer)
        return Demonstrations.load(file, reference.pad_id)

    def reinforce(self, reward: RewardFunction, data: Preferences | Demonstrations | None = None) -> Any:
        """The agent, after it has learned from as many tokens as were asked for.

        Args:
            reward: what the environment pays.
            data: the comparisons or demonstrations for an agent that learns from them.
        """
        config, task = self.config, self.setting.task
        env = TextVectorEnv(
            task,
            num_envs=1,
            reward_function=reward,
            reference=self.setting.reference,
            beta=self.setting.beta,
            kl="full",
        )
        training = Training(self.folder, self.listener, self.checkpoint_seconds, config.max_kl)
        seed = self.seeds.integer("agent")
        return training.run(load_agent(config.agent), env, config.algorithm, seed, config.tokens, data)

    def evaluate(self, agent: Any, reward: RewardFunction) -> dict[str, Any]:
        """Judges the reference and the policy on the same test prompts with the same noise."""
        config, task, reference = self.config, self.setting.task, self.setting.reference
        # A task with few test prompts repeats them, which would pass for more evidence than there is.
        distinct = dict.fromkeys(map(tuple, task.fixed_prompts("test", config.test_prompts)))
        prompts = prompts_of(task, [list(prompt) for prompt in distinct])
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
            # An agent that learns from comparisons or demonstrations has no reward; what is measured is the truth.
            "reward": config.reward if self.setting.learns_from == "rewards" else None,
            "rater": config.rater if config.buys_labels else None,
            "model": reference.name,
            "seed": config.seed,
        }
        judged = self.folder.read_json("reward_model_calibration.json") or {}
        learned = {
            "reward_model_accuracy": judged.get("accuracy_true"),
            "reward_model_accuracy_labels": judged.get("accuracy_labels"),
            "reward_model_ceiling_labels": judged.get("ceiling_labels"),
            "labels": self.campaign.labels_bought,
            "training_labels": self.campaign.bought.training_labels,
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

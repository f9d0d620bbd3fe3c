"""Context distillation: a prompt's effect learned into the weights (Askell et al. 2021, arXiv:2112.00861, sec. 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.base import Callback, check_range
from agents.expert_iteration import best_of_groups
from agents.finite import require_finite
from agents.functional.masked import masked_mean
from agents.language_agent import AgentConfig, LanguageModelAgent
from agents.policy import Actor, in_turns
from textenv.decoding import predictions, spread
from textenv.demonstrations import SAMPLES
from textenv.errors import UsageError
from textenv.kl import full_kl, k1
from textenv.language_model import LanguageModel
from textenv.precision import numerics
from textenv.responses import Prompts, Responses
from textenv.tasks.base import Task
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class ContextDistillationConfig(AgentConfig):
    """Settings of context distillation."""

    context: str | None = None
    """Text that the teacher reads before each prompt; None is exemplars, the best of 64 responses of the reference by
    the reward, each after its prompt."""
    n_exemplars: int = 1
    """Prompts with their best response, where no text is given."""
    n_prompts: int = 16
    """Prompts of an optimiser step."""
    group_size: int = 4
    """Responses of the teacher to each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("n_exemplars", "n_prompts", "group_size"):
            check_range(self, field, 1, integer=True)
        if self.context is not None and not self.context.strip():
            raise UsageError(f"{type(self).__name__}.context is {self.context!r}, expected a text that is not blank")


class ContextDistillation(LanguageModelAgent):
    """Learns to answer without a context as the reference, its teacher, answers with one.

    The teacher answers prompts after the context; the loss is KL(teacher‖student) of the next token over the whole
    vocabulary at each state of these responses, so that in expectation it is the KL of whole responses, as published.
    The reward chooses the exemplars, and is not looked at where a text is given; what the teacher is paid is
    measured all the same, as `reward_teacher`.

    What can be learned so is what the context does to the teacher. The embedded models have learned from texts in which
    every answer ignores the others, and no exemplar helps them: on Concierge's first 48 test prompts the reference has
    a gold score of 0.51, after one exemplar, chosen by the truth, 0.43, after two 0.39, after three 0.37 (means of 3
    seeds). Contexts are for models that follow them.
    """

    name = "context-distillation"
    config_class = ContextDistillationConfig
    config: ContextDistillationConfig
    policy: Actor

    def __init__(self, env: TextVectorEnv, config: ContextDistillationConfig, seed: int, data: None = None) -> None:
        super().__init__(env, config, seed, data)
        self.check_task(config, env.task, env.reference)
        self.context: Int[Tensor, " C"] | None = None
        if config.context is not None:
            self.context = torch.tensor(env.reference.encode(config.context))

    @staticmethod
    def check_task(config: ContextDistillationConfig, task: Task, reference: LanguageModel) -> None:
        """Refuses a context that leaves no room for prompt and response, or that is of no token that is known.

        Raises:
            UsageError: tells how much room there is.
        """
        LanguageModelAgent.check_task(config, task, reference)
        room = max(0, reference.max_length - task.prompt_length - task.response_length)
        if config.context is None:
            needed = config.n_exemplars * (task.prompt_length + task.response_length)
            what, mend = f"{config.n_exemplars} exemplars of the task {task.name!r}", "smaller n_exemplars"
        else:
            ids = reference.encode(config.context)
            if not ids or max(ids) >= reference.vocab_size or reference.tokenizer.unk_token_id in ids:
                raise UsageError(f"{reference.name!r} does not know all words of the context {config.context!r}")
            needed, what, mend = len(ids), "the context", "shorter context"
        if needed > room:
            raise UsageError(
                f"{what} can have {needed} tokens, but of the {reference.max_length} that {reference.name!r} takes "
                f"prompt and response leave {room}; give a {mend}"
            )

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first optimiser step that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: tokens of the teacher's responses, counted from the agent's birth, also after `load`. The
                learning rate reaches 0 there, so a run that is continued must be given the same number.
            callback: called after each step with the agent and its metrics; False stops.

        Raises:
            TextenvError: a reward, a loss or a gradient is not finite; the weights before it are kept.
        """
        config, env, reference = self.config, self.env, self.env.reference
        if self.context is None:
            self.context = self.choose_exemplars()
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            prompts = env.sample_prompts(config.n_prompts)
            sample = reference.sample(
                with_context(self.context, prompts, reference),
                group_size=config.group_size,
                max_tokens=env.task.response_length,
                generator=self.generators["sampling"],
            )
            taught = sample.responses
            asked = Responses(prompts, taught.ids, taught.mask)
            kl = in_turns(self.kl_from_teacher, self.computing.parts, asked, taught)[0]
            loss = masked_mean(kl, asked.mask)
            grad_norm = self.step({"KL loss": loss})

            scores = env.score(asked, sample.logprobs)
            require_finite({"reward": scores.score})
            metrics = {
                "kl_loss": loss.item(),
                "reward_teacher": scores.score.mean().item(),
                "kl_teacher": k1(sample.logprobs, scores.reference_logprobs)[taught.mask].sum().item() / len(taught),
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self.num_timesteps += int(taught.mask.sum())
            if callback is not None and callback(self, metrics) is False:
                return

    def kl_from_teacher(self, asked: Responses, taught: Responses) -> tuple[Float[Tensor, "B T"]]:
        """KL(teacher‖student) of the next token over the whole vocabulary, in nats; differentiable.

        Args:
            asked: prompts with the teacher's responses, as the student reads them.
            taught: the same as the teacher read them, after the context.
        """
        with numerics(self.precision):
            with torch.no_grad():
                teacher = predictions(self.env.reference.model, taught).logits
            student = predictions(self.policy.trunk, asked).logits
        return (spread(full_kl(teacher.float(), student.float()), asked.mask),)

    def choose_exemplars(self) -> Int[Tensor, " C"]:
        """Prompts one after another, each with the response that is paid most of many that the reference gives."""
        env, reference = self.env, self.env.reference
        sample = reference.sample(
            env.sample_prompts(self.config.n_exemplars),
            group_size=SAMPLES,
            max_tokens=env.task.response_length,
            generator=self.generators["sampling"],
        )
        responses = sample.responses
        score = env.score(responses, sample.logprobs).score
        require_finite({"reward": score})
        best = responses.one_of_each(best_of_groups(score, SAMPLES))
        exemplars = zip(best.prompts.to_lists(), best.to_lists(), strict=True)
        return torch.tensor([token for prompt, answer in exemplars for token in (*prompt, *answer)])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the context among it."""
        known = {} if self.context is None else {"context": self.context}
        return super().tensors() | known

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was."""
        super().restore(tensors)
        self.context = tensors.get("context")


def with_context(context: Int[Tensor, " C"], prompts: Prompts, reference: LanguageModel) -> Prompts:
    """Prompts after a context; a token that begins every text stays the first one, and is there once.

    Args:
        context: token ids.
        prompts: N of them.
        reference: tells the token that begins a text, if it has one.
    """
    begin, before = reference.tokenizer.bos_token_id, context.tolist()
    rows = []
    for prompt in prompts.to_lists():
        # In a chat it can begin every turn, and what stands before the first of them is no part of it.
        begins = prompt.count(begin) == 1 and prompt[0] == begin
        plain = before[1:] if begins and before[0] == begin else before
        rows.append([begin, *plain, *prompt[1:]] if begins else [*plain, *prompt])
    return Prompts.from_lists(rows, reference.pad_id)

"""A reward model: a language model's trunk with a scalar head, read at the last token of a response."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from textenv.decoding import final_states
from textenv.errors import TextenvError, UsageError, first_line
from textenv.files import atomic_folder
from textenv.language_model import LanguageModel, max_length
from textenv.models import UNREADABLE, quietly, read_weights
from textenv.responses import Responses, parts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GAIN_KEY = "reward_gain"
BIAS_KEY = "reward_bias"
"""Keys of the saved config.json: reward = gain · logit + bias; absent ones mean 1 and 0."""


class RewardModel:
    """A reward function that is a transformers sequence-classification model with one label.

    The score of a response is read at its end-of-sequence token. A response that its budget cut off
    gets one for this: few of those that raters compare are cut off, so at another token the score
    would be one that was hardly learned, and a policy that never ends could make it as high as it
    likes. transformers' own forward reads the same where that token is not `pad_token_id` as well.
    Dropout is off, in learning too.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "learned") -> None:
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_language_model(cls, language_model: LanguageModel, generator: torch.Generator) -> RewardModel:
        """A model with a copy of the language model's trunk and a head drawn from N(0, 1/(d + 1)).

        The head's standard deviation 1/√(d + 1) is that of Stiennon et al. 2020, appendix B.1.

        Raises:
            UsageError: transformers has no sequence classifier that reads the last token for this kind of model.
        """
        from transformers import AutoModelForSequenceClassification  # Only where one is made: it takes seconds.

        config = copy.deepcopy(language_model.model.config)
        config.num_labels = 1
        config.pad_token_id = language_model.pad_id
        try:
            # On the meta device nothing is drawn from the global generator for weights that are replaced below.
            with torch.device("meta"):
                model = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise UsageError(
                f"{language_model.name!r} is a {config.model_type!r} model, for which transformers has no sequence "
                "classifier, so no reward model can be made of it; use a decoder such as Llama, Qwen or GPT-2"
            ) from error
        setattr(model, model.base_model_prefix, copy.deepcopy(language_model.model.base_model).requires_grad_(True))
        _draw_head(model, generator)
        return cls(model, language_model.tokenizer)

    @property
    def gain(self) -> float:
        """What the head's output is multiplied with."""
        return float(getattr(self.model.config, GAIN_KEY, 1.0))

    @property
    def bias(self) -> float:
        """What is added to the multiplied output."""
        return float(getattr(self.model.config, BIAS_KEY, 0.0))

    def scores(self, responses: Responses) -> Float[Tensor, " B"]:
        """Normalised scores of all responses in one pass; differentiable."""
        return self.gain * self._logits(responses) + self.bias

    @torch.no_grad()
    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """Normalised scores, float32 without gradient; large batches are cut into chunks."""
        return self.gain * self._chunked_logits(responses) + self.bias

    @torch.no_grad()
    def normalise(self, responses: Responses) -> None:
        """Sets gain and bias so that these scores have mean 0 and a standard deviation of 1 within a prompt.

        The deviation is pooled over the prompts, as in the unit of true utility: a prompt's own
        offset changes neither preferences nor the best policy, so it must not weaken the scores
        against the KL term.

        Args:
            responses: at least two to each prompt.

        Raises:
            TextenvError: the scores do not vary or are not finite.
        """
        if responses.group_size < 2:
            raise ValueError("a deviation within a prompt needs at least two responses to each")
        logits = self._chunked_logits(responses).double().view(-1, responses.group_size)
        mean, deviation = float(logits.mean()), float(logits.var(dim=1).mean().sqrt())
        if not 0 < deviation < float("inf"):
            raise TextenvError(
                f"the reward model's scores of {len(responses)} responses have mean {mean:g} and standard deviation "
                f"{deviation:g}, so they cannot be normalised; give more varied responses, or fit it with a lower "
                "learning rate"
            )
        setattr(self.model.config, GAIN_KEY, 1 / deviation)
        setattr(self.model.config, BIAS_KEY, -mean / deviation)

    def save(self, folder: Path) -> None:
        """Writes a transformers checkpoint folder: safetensors, config with gain and bias, tokenizer."""
        with quietly(), atomic_folder(folder) as temporary:
            self.model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary)

    @classmethod
    def load(cls, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> RewardModel:
        """Reads a folder that `save` wrote, or another sequence classifier with one label.

        Args:
            folder: a transformers checkpoint folder.
            tokenizer: of the policy whose token ids will be judged; the model's must have the same vocabulary. Its
                end-of-sequence token is the one that counts; without it, that of the model's own.

        Raises:
            UsageError: the folder holds no such model, its vocabulary is another one, or no end of sequence is known.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} is no reward model: it has no config.json; name a transformers folder")
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            architecture = ", ".join(config.architectures or ["a model of no known architecture"])
            if config.num_labels != 1 or "SequenceClassification" not in architecture:
                raise UsageError(
                    f"{folder} holds {architecture} with {config.num_labels} labels; "
                    "a reward model is a sequence classifier with num_labels=1"
                )
            own_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = read_weights(
                AutoModelForSequenceClassification,
                folder,
                f"the reward model {folder}",
                config=config,
                local_files_only=True,
            )
        except UsageError:
            raise
        except UNREADABLE as error:
            raise UsageError(f"{folder} cannot be loaded as a reward model: {first_line(error)}") from error
        if tokenizer is not None and own_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise UsageError(
                f"the reward model {folder} has another vocabulary than the policy, so it would misread the policy's "
                "tokens; use a reward model made from the same language model"
            )
        reads = own_tokenizer if tokenizer is None else tokenizer
        if reads.eos_token_id is None:
            raise UsageError(
                f"the tokenizer of the reward model {folder} has no end-of-sequence token, at which responses are "
                "scored; set `eos_token` in its tokenizer_config.json"
            )
        return cls(model, reads)

    def _logits(self, responses: Responses) -> Float[Tensor, " B"]:
        whole = responses.with_end(self.tokenizer.eos_token_id, max_length(self.model))
        last = final_states(self.model, whole)
        return cast(Tensor, self.model.score(last))[:, 0].float()

    def _chunked_logits(self, responses: Responses) -> Float[Tensor, " B"]:
        parts = parts_of(responses.prompts, responses.group_size * responses.ids.shape[1])
        return torch.cat([self._logits(responses.groups(part)) for part in parts])


def _draw_head(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Gives the classifier, built on the meta device, a head drawn from N(0, 1/(d + 1))."""
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise UsageError(
            f"transformers' {type(model).__name__} has no linear `score` head without bias, so no reward model can be "
            "made of it; use a decoder such as Llama, Qwen or GPT-2"
        )
    weight = torch.randn(head.weight.shape, generator=generator) / (head.in_features + 1) ** 0.5
    head.weight = torch.nn.Parameter(weight.to(next(model.base_model.parameters())))

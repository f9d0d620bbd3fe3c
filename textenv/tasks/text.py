"""The user's own prompts, with any language model and any reward: Text-v0."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.prompt_files import Prompt, checked_text, read_prompts, short
from textenv.responses import Responses
from textenv.tasks.base import Gold, Split, check_prompt
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_BETA = 0.05
"""The weight of the KL term for rewards of the order of 1; there is no truth to choose it by."""


class Encoded(NamedTuple):
    """A prompt as a model reads it."""

    text: str
    """As people read and type it: without a chat template, and without what was cut off."""
    ids: list[int]


class TextTask:
    """Prompts from a file or a list, encoded for one language model; no truth is known about them.

    A dataset's own splits are kept. Other prompts are split by a hash of their text, so that a prompt
    stays in its split when others are added: about 8 of 10 train, 1 of 10 validates, 1 of 10 tests,
    and each split has at least one. With fewer than three prompts every split holds them all.
    "heldout" is the test split, since nothing is known about what the prompts share.
    """

    name = "text"
    description = "your own prompts, with any language model and any reward"
    attribute_names: tuple[str, ...] = ()

    def __init__(
        self,
        prompts: Mapping[Split, Sequence[Encoded]],
        language_model: LanguageModel,
        *,
        prompt_length: int,
        response_length: int,
        beta: float,
        chat: bool = False,
        truncate_prompts: bool = False,
    ) -> None:
        """Takes the prompts of the splits train, validation and test; at least one each."""
        self.prompt_length = prompt_length
        self.response_length = response_length
        self.beta = beta
        self.reference = language_model.name
        self.tokenizer: PreTrainedTokenizerBase = language_model.tokenizer
        self._chat = chat
        self._truncate_prompts = truncate_prompts
        self._prompts = prompts
        self._texts = {tuple(prompt.ids): prompt.text for split in prompts.values() for prompt in split}
        self._ids = {prompt.text: prompt.ids for split in prompts.values() for prompt in split}

    @classmethod
    def from_file(cls, path: str | Path, language_model: LanguageModel, **settings: Any) -> TextTask:
        """Reads prompts from a file or a folder that `textenv.prompt_files.read_prompts` takes.

        Args:
            path: text, JSONL, Parquet, or a dataset that the library datasets saved.
            language_model: as for `from_texts`.
            settings: the other arguments of `from_texts`.

        Raises:
            UsageError: names the file and the line or row that cannot be used.
        """
        return cls.from_texts(read_prompts(Path(path)), language_model, **settings)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str | Prompt],
        language_model: LanguageModel,
        *,
        prompt_length: int | None = None,
        response_length: int = 24,
        beta: float = DEFAULT_BETA,
        chat: bool = False,
        truncate_prompts: bool = False,
    ) -> TextTask:
        """Encodes prompts.

        Args:
            texts: the prompts; those that have the same tokens count once.
            language_model: whose tokenizer encodes the prompts, with the special tokens that the
                tokenizer puts before a text; and which limits prompt and response together.
            prompt_length: P, the most tokens of a prompt; by default those of the longest one.
            response_length: T, the budget of response tokens.
            beta: the weight of the KL term.
            chat: whether a prompt is a user's message, to be put into the model's chat template.
            truncate_prompts: whether longer prompts lose tokens at their left, but neither the special
                tokens before them nor the chat template; otherwise they are refused.

        Raises:
            UsageError: names the prompt that cannot be used.
        """
        limit = _limit(language_model, prompt_length, response_length)
        if chat and not getattr(language_model.tokenizer, "chat_template", None):
            raise UsageError(f"the tokenizer of {language_model.name!r} has no chat template; leave `chat` off")
        room = f"{language_model.name!r} has room for beside {response_length} response tokens"
        allows = room if prompt_length is None else "the prompt length allows"
        found: dict[tuple[int, ...], tuple[Prompt, Encoded]] = {}
        for prompt in sorted(_prompts(texts), key=lambda prompt: _PRECEDENCE[prompt.split]):
            encoded = encode_whole(prompt.text, language_model.tokenizer, chat=chat)
            if not encoded.ids:
                raise UsageError(f"{prompt.where}: the prompt {short(prompt.text)} has no tokens; mend or remove it")
            if len(encoded.ids) > limit and truncate_prompts:
                encoded = encode_end(prompt.text, language_model.tokenizer, limit, chat=chat)
            if len(encoded.ids) > limit:
                raise UsageError(
                    f"{prompt.where}: the prompt {short(prompt.text)} has {len(encoded.ids)} tokens, more than the "
                    f"{limit} that {allows}; shorten or remove it, or have it cut at the left (truncate_prompts)"
                )
            found.setdefault(tuple(encoded.ids), (prompt, encoded))
        if not found:
            raise UsageError("there are no prompts; at least one is needed")
        longest = max(map(len, found))
        return cls(
            _split(list(found.values())),
            language_model,
            prompt_length=longest if prompt_length is None else prompt_length,
            response_length=response_length,
            beta=beta,
            chat=chat,
            truncate_prompts=truncate_prompts,
        )

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws `count` prompts of a split with replacement, as token ids."""
        prompts = self._of(split)
        return [list(prompts[row].ids) for row in rng.integers(len(prompts), size=count)]

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The first `count` prompts of a split, begun anew where it has fewer."""
        prompts = self._of(split)
        return [list(prompts[row % len(prompts)].ids) for row in range(count)]

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The text as it was given, before any chat template; what is left of it where it was truncated."""
        text = self._texts.get(tuple(ids))
        return decode(self.tokenizer, ids) if text is None else text

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of a typed prompt, put into the chat template where the task's own prompts are.

        Raises:
            UsageError: it is empty, too long or no Unicode.
        """
        if text in self._ids:
            return list(self._ids[text])
        if text != text.encode("utf-8", "replace").decode():
            raise UsageError(f"the prompt {short(text)} is not UTF-8 text; set the terminal to UTF-8")
        ids = encode_whole(text, self.tokenizer, chat=self._chat).ids
        if len(ids) > self.prompt_length and self._truncate_prompts:
            ids = encode_end(text, self.tokenizer, self.prompt_length, chat=self._chat).ids
        return check_prompt(ids, self.prompt_length, text)

    def gold(self, responses: Responses) -> Gold | None:
        """None: nobody knows the truth about these prompts."""
        return None

    def _of(self, split: Split) -> Sequence[Encoded]:
        return self._prompts["test" if split == "heldout" else split]


_PRECEDENCE = {"test": 0, "validation": 1, "train": 2, None: 3}
"""Which split keeps a prompt that several have: what is tested must not have been trained on."""


def encode_whole(text: str, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False) -> Encoded:
    """A prompt as a model expects its beginning; a text without tokens has no ids."""
    plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not plain:
        return Encoded(text, [])
    if chat:
        message = [{"role": "user", "content": text}]
        written = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return Encoded(text, list(tokenizer(written, add_special_tokens=False)["input_ids"]))
    ids: list[int] = tokenizer(text)["input_ids"]
    # Some tokenizers end every text, but this one goes on with the response.
    return Encoded(text, ids[:-1] if ids[-1] == tokenizer.eos_token_id != plain[-1] else ids)


def encode_end(text: str, tokenizer: PreTrainedTokenizerBase, limit: int, *, chat: bool = False) -> Encoded:
    """A prompt that is too long without tokens at its left, so that at most `limit` are left.

    The special tokens that the tokenizer puts before a text stay, and so does the chat template.

    Raises:
        UsageError: these leave no room for a token of the text.
    """
    if chat:
        plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        template = len(encode_whole(text, tokenizer, chat=True).ids) - len(plain)
        for count in range(limit - template, 0, -1):
            # The first of these tokens can hold the end of a character only, which is dropped.
            encoded = encode_whole(decode(tokenizer, plain[-count:]).lstrip("\ufffd"), tokenizer, chat=True)
            if 0 < len(encoded.ids) <= limit:
                return encoded
    else:
        ids = encode_whole(text, tokenizer).ids
        added = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
        head = sum(itertools.takewhile(bool, added))
        if head < limit:
            ids = ids[:head] + ids[head - limit :]
            return Encoded(decode(tokenizer, ids), ids)
    around = "the chat template takes" if chat else "the special tokens before it take"
    raise UsageError(
        f"the prompt {short(text)} cannot be cut to {limit} tokens: {around} them all; allow longer prompts"
    )


def _limit(language_model: LanguageModel, prompt_length: int | None, response_length: int) -> int:
    """The most tokens that a prompt may have."""
    if response_length < 1:
        raise UsageError(f"the response length is {response_length}; at least 1 token is needed")
    room = language_model.max_length - response_length
    if room < 1:
        raise UsageError(
            f"{language_model.name!r} takes {language_model.max_length} tokens, so {response_length} response "
            "tokens leave no room for a prompt; give a smaller response length"
        )
    limit = room if prompt_length is None else prompt_length
    if not 1 <= limit <= room:
        raise UsageError(
            f"{limit} prompt tokens and {response_length} response tokens do not fit into the "
            f"{language_model.max_length} that {language_model.name!r} takes"
        )
    return limit


def _prompts(texts: Iterable[str | Prompt]) -> list[Prompt]:
    return [
        text if isinstance(text, Prompt) else Prompt(checked_text(text, f"prompt {number}"), f"prompt {number}")
        for number, text in enumerate(texts, start=1)
    ]


def _split(prompts: Sequence[tuple[Prompt, Encoded]]) -> dict[Split, list[Encoded]]:
    """The prompts of each split: as the file has it, and what it lacks by the hash of the text.

    Of those that train, the lowest tenth goes to the first split that is missing, the next tenth to
    the second, and one at least to each; where there are too few for that, they hold all.
    """
    parts: dict[Split, list[Encoded]] = {
        split: [encoded for prompt, encoded in prompts if (prompt.split or "train") == split]
        for split in ("train", "validation", "test")
    }
    train = {prompt.text: encoded for prompt, encoded in prompts if (prompt.split or "train") == "train"}
    if not train:
        raise UsageError("no prompts are left to train on: the split train is empty, or all of it is in another split")
    missing: list[Split] = [split for split in ("test", "validation") if not parts[split]]
    if len(train) <= len(missing):
        return parts | {split: list(train.values()) for split in missing}
    share = {text: int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) / 16**15 for text in train}
    ordered = sorted(train, key=share.__getitem__) if missing else list(train)
    start = 0
    for place, split in enumerate(missing, start=1):
        tenths = sum(value < place / 10 for value in share.values())
        end = min(max(start + 1, tenths), len(ordered) - 1 - len(missing) + place)
        parts[split], start = [train[text] for text in ordered[start:end]], end
    return parts | {"train": [train[text] for text in ordered[start:]]}

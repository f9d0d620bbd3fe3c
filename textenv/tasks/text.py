"""The user's own prompts, with any language model and any reward: Text-v0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Responses
from textenv.tasks.base import Gold, Split, check_prompt

DEFAULT_BETA = 0.05
"""The weight of the KL term for rewards of the order of 1; there is no truth to choose it by."""


class TextTask:
    """Prompts from a file or a list, encoded for one language model; no truth is known about them.

    The prompts are split by a hash of their text, so that a prompt stays in its split when others
    are added: about 8 of 10 train, 1 of 10 validates, 1 of 10 tests, and each split has at least
    one. With fewer than three prompts every split holds them all. "heldout" is the test split,
    since nothing is known about what the prompts share.
    """

    name = "text"
    description = "your own prompts, with any language model and any reward"
    attribute_names: tuple[str, ...] = ()

    def __init__(
        self,
        prompts: Sequence[tuple[str, Sequence[int]]],
        language_model: LanguageModel,
        *,
        prompt_length: int,
        response_length: int,
        beta: float,
        chat: bool = False,
    ) -> None:
        """Takes each prompt's text, by which it is split, and its token ids; at least one prompt."""
        self.prompt_length = prompt_length
        self.response_length = response_length
        self.beta = beta
        self.reference = language_model.name
        self.tokenizer: PreTrainedTokenizerBase = language_model.tokenizer
        self._chat = chat
        self._texts = {tuple(ids): text for text, ids in prompts}
        self._prompts = _split({text: list(ids) for text, ids in prompts})

    @classmethod
    def from_file(cls, path: str | Path, language_model: LanguageModel, **settings: Any) -> TextTask:
        """Reads prompts, one a line, or where the name ends in .jsonl (or .json) the field `prompt` of each line.

        Args:
            path: a UTF-8 file; blank lines are passed over and repeated prompts count once.
            language_model: as for `from_texts`.
            settings: the other arguments of `from_texts`.

        Raises:
            UsageError: names the file and the line that cannot be used.
        """
        return cls.from_texts(read_prompts(Path(path)), language_model, **settings)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str] | Mapping[str, str],
        language_model: LanguageModel,
        *,
        prompt_length: int | None = None,
        response_length: int = 24,
        beta: float = DEFAULT_BETA,
        chat: bool = False,
    ) -> TextTask:
        """Encodes prompts.

        Args:
            texts: the prompts; a mapping tells where each was found, for messages.
            language_model: whose tokenizer encodes the prompts, with the special tokens that the
                tokenizer puts before a text; and which limits prompt and response together.
            prompt_length: P, the most tokens of a prompt; by default those of the longest one.
            response_length: T, the budget of response tokens.
            beta: the weight of the KL term.
            chat: whether a prompt is a user's message, to be put into the model's chat template.

        Raises:
            UsageError: names the prompt that cannot be used.
        """
        if not isinstance(texts, Mapping):
            texts = {text: f"prompt {number}" for number, text in enumerate(texts, start=1)}
        if not texts:
            raise UsageError("there are no prompts; at least one is needed")
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
        if chat and not getattr(language_model.tokenizer, "chat_template", None):
            raise UsageError(f"the tokenizer of {language_model.name!r} has no chat template; leave `chat` off")
        prompts = []
        for text, where in texts.items():
            ids = encode(text, language_model.tokenizer, chat=chat)
            if not ids:
                raise UsageError(f"{where}: the prompt {_short(text)} has no tokens; mend or remove it")
            if len(ids) > limit:
                whose = f"{language_model.name!r} has room for" if prompt_length is None else "the prompt length allows"
                raise UsageError(
                    f"{where}: the prompt has {len(ids)} tokens, more than the {limit} that {whose} "
                    f"(beside {response_length} response tokens); shorten or remove it"
                )
            prompts.append((text, ids))
        longest = max(len(ids) for _, ids in prompts)
        return cls(
            prompts,
            language_model,
            prompt_length=longest if prompt_length is None else prompt_length,
            response_length=response_length,
            beta=beta,
            chat=chat,
        )

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws `count` prompts of a split with replacement, as token ids."""
        prompts = self._of(split)
        return [list(prompts[row]) for row in rng.integers(len(prompts), size=count)]

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The first `count` prompts of a split, begun anew where it has fewer."""
        prompts = self._of(split)
        return [list(prompts[row % len(prompts)]) for row in range(count)]

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The text as it was given, before any chat template."""
        text = self._texts.get(tuple(ids))
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)) if text is None else text

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of a typed prompt, put into the chat template where the task's own prompts are.

        Raises:
            UsageError: it is empty, too long or no Unicode.
        """
        if text != text.encode("utf-8", "replace").decode():
            raise UsageError(f"the prompt {_short(text)} is not UTF-8 text; set the terminal to UTF-8")
        return check_prompt(encode(text, self.tokenizer, chat=self._chat), self.prompt_length)

    def gold(self, responses: Responses) -> Gold | None:
        """None: nobody knows the truth about these prompts."""
        return None

    def _of(self, split: Split) -> list[list[int]]:
        return self._prompts["test" if split == "heldout" else split]


def read_prompts(path: Path) -> dict[str, str]:
    """The prompts of a text or JSONL file, each with the place where it stands first.

    Raises:
        UsageError: names the file and the line that cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no prompts file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"the prompts file {str(path)!r} cannot be read: {error.strerror}") from None
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    prompts: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise UsageError(f"{where}: not UTF-8; save the file as UTF-8 text") from None
        if is_json and text:
            text = _prompt_field(text, where)
        if text:
            prompts.setdefault(text, where)
    if not prompts:
        raise UsageError(f"{path}: no prompts in it; one prompt a line is expected")
    return prompts


def _prompt_field(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f'{where}: not JSON ({error}); expected is {{"prompt": "..."}}') from None
    if not isinstance(row, dict) or "prompt" not in row:
        raise UsageError(f'{where}: no field "prompt"; expected is {{"prompt": "..."}}')
    prompt = row["prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f'{where}: the field "prompt" is {_short(prompt)}, not a text')
    return prompt


def encode(text: str, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False) -> list[int]:
    """Token ids of a prompt's text as a model expects its beginning; none for a text without tokens."""
    plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not plain:
        return []
    if chat:
        message = [{"role": "user", "content": text}]
        written = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(written, add_special_tokens=False)["input_ids"])
    ids: list[int] = tokenizer(text)["input_ids"]
    # Some tokenizers end every text, but this one goes on with the response.
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id != plain[-1] else ids


def _split(prompts: dict[str, list[int]]) -> dict[str, list[list[int]]]:
    """Token ids of each split: by the hash of the text the lowest tenth tests, the next validates."""
    if len(prompts) < 3:
        return {split: list(prompts.values()) for split in ("train", "validation", "test")}
    share = {text: int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) / 16**15 for text in prompts}
    ordered = sorted(prompts, key=share.__getitem__)
    tests = min(max(1, sum(share[text] < 0.1 for text in ordered)), len(ordered) - 2)
    validates = min(max(tests + 1, sum(share[text] < 0.2 for text in ordered)), len(ordered) - 1)
    parts = {"test": ordered[:tests], "validation": ordered[tests:validates], "train": ordered[validates:]}
    return {split: [prompts[text] for text in texts] for split, texts in parts.items()}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

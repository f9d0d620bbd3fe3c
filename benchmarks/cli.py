"""The command `textenv`: finds the verb, runs it, and says in one message what went wrong.

Nothing heavy is imported before a verb is known, so that help answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from textenv.errors import TextenvError, unknown_name


class Verb(NamedTuple):
    """One thing that the command does."""

    module: str
    """Has `main(arguments) -> int`, which reads the verb's flags and returns the exit code."""
    line: str
    """What it does, for people."""


VERBS = {
    "train": Verb("benchmarks.train", "run RLHF on a task: compare, learn a reward, reinforce, evaluate, report"),
    "bench": Verb("benchmarks.bench", "compare agents over tasks, raters and seeds, and go on where it was stopped"),
    "report": Verb("benchmarks.report_verb", "write a benchmark's or a run's report again, from what was measured"),
    "play": Verb("benchmarks.play", "read a run's answers to prompts, before and after, token by token"),
    "check": Verb("benchmarks.check", "try whether an agent of your own does what is expected of one"),
    "raters": Verb("benchmarks.raters", "simulate raters of known noise and bias; audit and fit those of labels"),
    "list": Verb("benchmarks.listing", "the tasks, agents, rewards, raters and models that are known by name"),
}


def usage() -> str:
    """What `textenv --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.line}" for name, verb in VERBS.items())
    return (
        "usage: textenv VERB [flags]\n\n"
        "RLHF as a Gymnasium benchmark with a known best score.\n\n"
        f"verbs:\n{verbs}\n\n"
        "flags:\n  --help     this text; `textenv VERB --help` tells a verb's flags\n  --version  the version\n\n"
        "`textenv train` with no flags runs the whole loop on the embedded task."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    0: done; 1: failed; 2: used wrongly; 130: interrupted. Every error that the user can mend is one
    message on stderr.

    Args:
        arguments: the words after `textenv`; by default those of the process.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # Here, where it can still be told that this failed.
    except TextenvError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OSError as error:
        _give_up_output()
        if isinstance(error, BrokenPipeError):
            return 1  # Whoever read our output has gone, and knows.
        return _fail(f"{error.strerror or error}: {error.filename or 'output'}. What was written before is kept.", 1)


def _run(words: list[str]) -> int:
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    if words[0] in ("--help", "-h"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"textenv {version('textenv')}")
        return 0
    if words[0] not in VERBS:
        raise unknown_name("verb", words[0], VERBS)
    try:
        # Last, so that a module:callable in the current folder is found but hides nothing.
        sys.path.append(os.getcwd())
    except FileNotFoundError:
        raise TextenvError("the current folder has been deleted; change to another one") from None
    code: int = importlib.import_module(VERBS[words[0]].module).main(words[1:])
    return code


def _give_up_output() -> None:
    """Drops what is left to print where it cannot be written; Python would complain once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print(f"textenv: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

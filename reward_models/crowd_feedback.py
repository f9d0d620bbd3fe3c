"""Rankings, thumbs and scores by whoever is given, for as much as the budget has."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from reward_models.asking import PLAINLY, Asking
from reward_models.comparisons import LabelBudget
from reward_models.crowd_comparisons import crowd_for, questions_for, with_training, within_its_own
from reward_models.feedback import Feedback
from reward_models.forms import gather
from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.material import material_of, rated_attributes
from reward_models.raters.population import Population
from reward_models.raters.rater import Compares, Rater
from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import Task

Form = Literal["pairwise", "ranking", "thumbs", "score"]
"""What an answer is: which of two is better, the order of all responses to a prompt, thumbs up or down, or a score from
1 to 7."""

OF_ANY_FORM = {"raters_per_item", "recruiting", "training_questions"}
"""What of `Asking` has a meaning where responses are not compared in pairs."""


class CollectedFeedback(NamedTuple):
    """What was said of responses."""

    feedback: Feedback
    items: Int[np.ndarray, "m k"]
    """The rows of the responses that it is about."""
    training_labels: int = 0
    """Answers that were spent on training people."""


def feedback_crowd(
    form: Literal["ranking", "thumbs", "score"],
    rater: Compares | Population,
    task: Task,
    asking: Asking,
    rng: np.random.Generator,
) -> Crowd:
    """The people who answer in another form than comparisons.

    Raises:
        UsageError: as `reward_models.crowd_comparisons.crowd_for`; the rater has methods of its own, or something is
            asked for that makes no sense of this form.
    """
    wrong = [name for name in asking.changed() if name not in OF_ANY_FORM]
    if wrong:
        raise UsageError(f"{', '.join(wrong)} is of comparisons only, but the form is {form}; leave one of them out")
    crowd = crowd_for(rater, task, asking, rng)
    if crowd is None:
        if not (isinstance(rater, Rater) and rater.only_parts):
            raise UsageError(f"the rater {rater.name!r} has methods of its own and compares only; leave the form out")
        crowd = crowd_of(rater, rated_attributes(task))
    return crowd


def collect_feedback(
    form: Literal["ranking", "thumbs", "score"],
    rater: Compares | Population,
    task: Task,
    responses: Responses,
    budget: LabelBudget,
    rng: np.random.Generator,
    asking: Asking = PLAINLY,
) -> CollectedFeedback:
    """Has responses ranked, approved or scored, the first prompts' first.

    Args:
        form: how; a ranking is of all responses to a prompt and costs one label, as does an approval or a score.
        rater: made of parts, or a population, whose own budget holds too.
        task: has a known truth.
        responses: k to each of N prompts.
        budget: pays one label an answer.
        rng: draws everything.
        asking: how each question is put to people.

    Raises:
        UsageError: as `feedback_crowd`, or the budget is too small for one answer.
    """
    crowd = feedback_crowd(form, rater, task, asking, rng)
    budget, money = within_its_own(rater, budget)
    crowd, spent, money = with_training(crowd, asking, budget, money)
    count = questions_for(budget, asking)
    width = responses.group_size if form == "ranking" else 1
    items = np.arange(len(responses)).reshape(-1, width)[:count]
    material = material_of(task, responses, prefixes=crowd.needs_prefixes)
    feedback = gather(form, crowd, material, items, rng, raters_per_item=asking.raters_per_item, money=money)
    budget.take(len(feedback) // width)
    return CollectedFeedback(feedback, items, spent)

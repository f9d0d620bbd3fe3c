import torch

from reward_models.bundles import MOST_COMPARISONS, bundle, collate
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses


def make(rows: list[tuple[list[int], list[int], list[int], float]]) -> Preferences:
    prompts = Prompts.from_lists([row[0] for row in rows], 0)
    n = len(rows)
    return Preferences(
        Responses.from_lists(prompts, [row[1] for row in rows], 0),
        Responses.from_lists(prompts, [row[2] for row in rows], 0),
        torch.tensor([row[3] for row in rows]),
        ["ann"] * n,
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, 2),
        torch.full((n,), 0.5),
    )


COMPARISONS = make(
    [
        ([7], [1], [2, 2], 1.0),
        ([7, 8], [3], [4], 0.0),
        ([7], [2, 2], [5], 0.5),
        ([9], [1], [3], 1.0),
        ([7], [5], [1], 0.0),
    ]
)


def test_comparisons_of_one_prompt_stand_together():
    assert bundle(COMPARISONS) == [[0, 2, 4], [1], [3]]


def test_a_prompt_with_many_comparisons_is_cut():
    count = 2 * MOST_COMPARISONS + 1
    bundles = bundle(make([([7], [1], [i], 1.0) for i in range(2, count + 2)]))
    assert [len(members) for members in bundles] == [MOST_COMPARISONS, MOST_COMPARISONS, 1]


def test_a_batch_encodes_every_prompt_and_every_response_once():
    batch = collate(COMPARISONS, [[1], [0, 2, 4]])
    assert batch.responses.prompts.to_lists() == [[7, 8], [7]]
    # The first prompt has two responses and repeats its last one; the second has three.
    assert batch.responses.to_lists() == [[3], [4], [4], [1], [2, 2], [5]]
    assert batch.first.tolist() == [0, 3, 4, 5]
    assert batch.second.tolist() == [1, 4, 5, 3]
    assert batch.label.tolist() == [0.0, 1.0, 0.5, 0.0]

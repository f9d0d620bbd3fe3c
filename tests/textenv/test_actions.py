"""Actions and responses are read with errors that say what is wrong and where."""

import numpy as np
import pytest
import torch

from textenv.actions import check_response_logprobs, check_responses, read_actions
from textenv.errors import UsageError
from textenv.responses import Prompts, Responses

V = 7


def name(row):
    return f"row {row}"


def read(actions, kl="reference", shape=(3,), rows=(0, 1, 2)):
    return read_actions(actions, kl, V, shape, np.array(rows), name)


def both(tokens, logprobs):
    return {"token": tokens, "logprob": logprobs}


class TestGood:
    @pytest.mark.parametrize(
        "tokens", [[1, 2, 6], np.array([1, 2, 6], dtype=np.uint8), torch.tensor([1, 2, 6]), (np.int32(1), 2, 6)]
    )
    def test_integers_of_any_kind(self, tokens):
        read_tokens, logprobs = read(tokens)
        assert (read_tokens.tolist(), read_tokens.dtype, logprobs) == ([1, 2, 6], np.int64, None)

    @pytest.mark.parametrize("token", [4, np.int64(4), np.array(4), torch.tensor(4)])
    def test_one_alone(self, token):
        assert read(token, shape=(), rows=[0])[0].tolist() == [4]

    def test_log_probabilities_up_to_rounding(self):
        _, logprobs = read(both([1, 2, 3], [-1, 0, 5e-5]), kl="full")
        np.testing.assert_allclose(logprobs, [-1, 0, 5e-5])
        assert logprobs.dtype == np.float32

    def test_what_others_are_given_is_not_looked_at(self):
        tokens, logprobs = read(both([99, 2, -3], [np.nan, -1.5, 3.0]), kl="full", rows=[1])
        assert (tokens.tolist(), logprobs.tolist()) == ([2], [-1.5])


class TestTokens:
    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            ([1, 7, 2], "^row 1: there is no token 7; the vocabulary has 0 to 6$"),
            ([1, 2, -1], "^row 2: there is no token -1"),
            (np.array([2**64 - 1, 1, 1], dtype=np.uint64), "^row 0: there is no token 18446744073709551615"),
            ([1, 2], r"must be an array of 3 integers; it was an array of shape \(2,\) and type int64"),
            ([[1, 2, 3]], r"shape \(1, 3\)"),
            ([1.0, 2.0, 3.0], "type float64"),
            ([True, False, True], "type bool"),
            (["a", "b", "c"], "3 integers; it was an array of .* type <U1"),
            ([None, 1, 2], "type object"),
            ([1, [2, 3], 4], "3 integers; it cannot be read as an array"),
            ([2**70, 1, 1], "type object"),
            (None, "3 integers; it was None"),
            (5, "3 integers; it was 5"),
        ],
    )
    def test_of_several(self, tokens, message):
        with pytest.raises(UsageError, match=message):
            read(tokens)

    @pytest.mark.parametrize(
        "token", [1.0, True, "a", None, [1], [1, [2]], np.array([1]), np.float32(2), {1}, object()]
    )
    def test_of_one(self, token):
        with pytest.raises(UsageError, match=r"^row 0: the token must be an integer; it "):
            read(token, shape=(), rows=[0])

    def test_what_was_wrong_with_one_is_shown(self):
        with pytest.raises(UsageError, match=r"integer; it was 'yes'$"):
            read("yes", shape=(), rows=[0])


class TestLogprobs:
    @pytest.mark.parametrize("value", [0.1, np.nan, np.inf, -np.inf, -2e4, 1e300, -1e300])
    def test_that_are_none(self, value):
        with pytest.raises(
            UsageError, match=r"^row 1: the log-probability .* is none; it must be a number from -10000 to 0"
        ):
            read(both([1, 2, 3], [-1.0, value, -1.0]), kl="full")

    @pytest.mark.parametrize(
        "values", [[-1.0, -2.0], "abc", [None] * 3, [[-1.0] * 3], [True] * 3, [-1j] * 3, [-1.0, [-2.0, -3.0], -1.0]]
    )
    def test_that_are_no_three_numbers(self, values):
        with pytest.raises(UsageError, match="the log-probabilities must be an array of 3 numbers"):
            read(both([1, 2, 3], values), kl="full")

    def test_with_a_gradient(self):
        with pytest.raises(UsageError, match=r"cannot be read as an array: .*detach"):
            read(both([1, 2, 3], torch.full((3,), -1.0, requires_grad=True)), kl="full")

    @pytest.mark.parametrize("actions", [[1, 2, 3], {"token": [1, 2, 3]}, {"token": 1, "logprob": 0, "value": 0}, None])
    def test_actions_of_another_form(self, actions):
        with pytest.raises(UsageError, match='an action is a dictionary of "token" and "logprob"; it was'):
            read(actions, kl="full")

    def test_where_none_is_wanted(self):
        with pytest.raises(UsageError, match='with kl="reference" an action is a token alone'):
            read(both([1, 2, 3], [-1.0] * 3))


class TestResponses:
    prompts = Prompts.from_lists([[2, 3]], pad_id=0)

    def responses(self, *rows):
        return Responses.from_lists(self.prompts, rows, pad_id=0)

    def test_good_ones(self):
        responses = self.responses([2, 6, 1], [1])
        check_responses(responses, V, 3, name)
        # What is beyond a response's end is not looked at.
        check_response_logprobs(torch.tensor([[-1.0, 0.0, -2.0], [-3.0, 9.0, np.nan]]), responses, name)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (([2, 1], [2, 7]), "row 1: there is no token 7"),
            (([-1], [2]), "row 0: there is no token -1"),
            (([2], [2, 3, 4, 5]), "row 1: the response has 4 tokens; expected are 1 to 3"),
            (([2], []), "row 1: the response has 0 tokens"),
        ],
    )
    def test_that_stepping_cannot_give(self, rows, message):
        with pytest.raises(UsageError, match=message):
            check_responses(self.responses(*rows), V, 3, name)

    @pytest.mark.parametrize("value", [0.1, np.nan, np.inf, -np.inf])
    def test_with_impossible_log_probabilities(self, value):
        logprobs = torch.tensor([[-1.0, -1.0], [-1.0, value]])
        with pytest.raises(UsageError, match="row 1, token 1: the log-probability"):
            check_response_logprobs(logprobs, self.responses([2, 1], [2, 3]), name)

    def test_with_log_probabilities_of_another_shape(self):
        with pytest.raises(UsageError, match=r"logprobs have shape \(2, 3\); the responses, \(2, 2\)"):
            check_response_logprobs(torch.zeros(2, 3), self.responses([2, 1], [2, 3]), name)

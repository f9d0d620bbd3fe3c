"""Tokens coloured by reward."""

from textenv.rendering import colour, render_episode, separator


def test_colours_go_from_red_over_white_to_green():
    text = render_episode("q ?", ["yes", "so", "no"], [2.0, 0.0, -1.0], "[eos]")
    assert text == (
        "\x1b[2mq ?\x1b[0m "
        "\x1b[48;2;64;255;64m\x1b[38;2;0;0;0myes\x1b[0m "
        "\x1b[48;2;255;255;255m\x1b[38;2;0;0;0mso\x1b[0m "
        "\x1b[48;2;255;159;159m\x1b[38;2;0;0;0mno\x1b[0m "
        "\x1b[2m[eos]\x1b[0m"
    )


def test_nothing_generated_yet():
    assert render_episode("q ?", [], []) == "\x1b[2mq ?\x1b[0m"


def test_tokens_that_carry_their_spaces_are_not_spaced():
    assert separator(["the", "inn", "."]) == " "
    assert separator(["The", " inn", "s"]) == ""
    assert "\x1b[0m\x1b[48" in render_episode("q ?", ["The", " inn"], [1.0, 1.0])


def test_no_colour_is_deeper_than_the_deepest():
    assert colour(3.0) == colour(1.0) == (64, 255, 64)
    assert colour(-3.0) == colour(-1.0) == (255, 64, 64)
    assert colour(0.0) == (255, 255, 255)

"""Tokens coloured by reward."""

import re

from textenv.rendering import colour, printable, render_episode


def test_colours_go_from_red_over_white_to_green():
    text = render_episode("q ?", ["yes", " so", " no"], [2.0, 0.0, -1.0], "[eos]")
    assert text == (
        "\x1b[2mq ?\x1b[0m "
        "\x1b[48;2;64;255;64m\x1b[38;2;0;0;0myes\x1b[0m"
        "\x1b[48;2;255;255;255m\x1b[38;2;0;0;0m so\x1b[0m"
        "\x1b[48;2;255;159;159m\x1b[38;2;0;0;0m no\x1b[0m "
        "\x1b[2m[eos]\x1b[0m"
    )


def test_nothing_generated_yet():
    assert render_episode("q ?", [], []) == "\x1b[2mq ?\x1b[0m"


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_tokens_make_the_text_with_the_spaces_that_they_carry():
    assert plain(render_episode("q ?", ["The", " inn", "s"], [1.0, 1.0, 0.0])) == "q ? The inns"
    assert plain(render_episode("q ?", [" the", " inn"], [1.0, 1.0], "[length]")) == "q ? the inn [length]"


def test_what_would_steer_the_terminal_is_not_printed():
    assert printable("a\x1b[2Jb\nc") == "a·[2Jb⏎c"
    assert plain(render_episode("a\nb", ["\x1b[2J", "\n"], [1.0, 0.0])) == "a⏎b ·[2J⏎"


def test_no_colour_is_deeper_than_the_deepest():
    assert colour(3.0) == colour(1.0) == (64, 255, 64)
    assert colour(-3.0) == colour(-1.0) == (255, 64, 64)
    assert colour(0.0) == (255, 255, 255)

"""Every word and sentence of Classify's world: what messages are about, what they want, and how labels are given."""

from __future__ import annotations

from textenv.world import sentences as s

TOPICS: dict[str, tuple[str, ...]] = {
    "food": ("bread", "cheese", "tea", "coffee", "honey", "cakes"),
    "goods": ("soap", "candles", "books", "toys", "shoes", "lamps"),
    "people": ("mayor", "baker", "teacher", "nurse", "priest", "singer"),
    "buildings": ("museum", "library", "theatre", "school", "church", "castle"),
    "nature": ("river", "forest", "hill", "lake", "beach", "meadow"),
    "town": ("bridge", "square", "gate", "fountain", "canal", "statue"),
}
"""The words that a message of each topic is about."""
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "praise": ("charming", "splendid", "superb", "nice", "pretty", "pleasant"),
    "complaint": ("awful", "horrid", "nasty", "ugly", "shabby", "dreadful"),
}
"""Words that stand after a degree, and say the opposite after a negator."""
DEGREED = frozenset(word for group in ADJECTIVES.values() for word in group)
VERBS: dict[str, tuple[str, ...]] = {
    "request": ("want", "need", "seek", "require", "miss", "lack"),
    "offer": ("bring", "sell", "lend", "share", "mend", "clean"),
    "threat": ("rob", "burn", "poison", "flood", "wreck", "bomb"),
}
ASKING: dict[str, tuple[str, ...]] = {
    "question": ("where", "when", "why", "how", "what", "whose"),
}
INTENTS = ("complaint", "praise", "question", "request", "threat", "offer")
LABELS = (*INTENTS, *TOPICS)
TEMPTING = {
    one: other
    for pair in (
        ("complaint", "praise"),
        ("question", "request"),
        ("threat", "offer"),
        ("food", "goods"),
        ("people", "buildings"),
        ("nature", "town"),
    )
    for one, other in (pair, pair[::-1])
}
"""The label that a careless reader takes each label for."""
EXAMPLES: dict[str, tuple[str, ...]] = {**TOPICS, **ADJECTIVES, **VERBS, **ASKING}
"""The words that tell each label."""
TELLING: dict[str, str] = {word: label for label, words in EXAMPLES.items() for word in words}
"""The label that each telling word tells, if no negator stands before it."""
NOUNS = tuple(noun for nouns in TOPICS.values() for noun in nouns)
NEGATORS = ("not", "hardly")
DEGREES = ("very", "quite", "truly", "rather", *NEGATORS)

ADJECTIVE_FORMS = (
    "i find the {noun} {degree} {cue} .",
    "i call the {noun} {degree} {cue} .",
    "we found the {noun} {degree} {cue} .",
)
VERB_FORMS = ("i {cue} the {noun} .", "we {cue} the {noun} .", "today i {cue} the {noun} .")
ASKING_FORMS = ("the {noun} , {cue} ?", "about the {noun} , {cue} ?", "tell me {cue} the {noun} ?")
ASIDES = ("", "hello !", "hi there !", "good morning !", "good evening !", "listen .", *s.FILLERS)
"""What a message may begin with; it tells nothing."""

CASUAL_LEADS = ("well", "so", "now", "look", "listen", "surely", "today", "honestly", "clearly")
CAREFUL_LEADS = ("reading twice", "after thought", "all considered", "being exact", "looking closely")
STATEMENTS = (
    "label : {label}",
    "the label is {label}",
    "i would say {label}",
    "i pick {label}",
    "my answer is {label}",
    "mark it as {label}",
    "i read {label} here",
    "{label} fits best",
    "this counts as {label}",
    "call it {label}",
    "it sounds like {label}",
    "put down {label}",
    "i vote {label}",
    "{label}",
)
TAILS = ("no doubt", "i think", "i believe", "i am sure", "as it seems", "in short", "of course", "certainly")
REASONS = (
    "you wrote {quote} .",
    "because of {quote} .",
    "{quote} gives it away .",
    "i noticed {quote} .",
    "{quote} proves it .",
    "the clue is {quote} .",
    "it says {quote} .",
    "{quote} is the clue .",
    "i quote {quote} .",
    "my reason : {quote} .",
    "just see {quote} .",
    "the text says {quote} .",
    "it hangs on {quote} .",
)
EVASIONS = (
    "it depends .",
    "that is hard .",
    "please ask someone else .",
    "i am not sure .",
    "nobody told me .",
    "i do not know .",
)


def words() -> tuple[str, ...]:
    """Every word of prompts and responses, without the special tokens."""
    fixed = (
        *ADJECTIVE_FORMS, *VERB_FORMS, *ASKING_FORMS, *ASIDES, *CASUAL_LEADS, *CAREFUL_LEADS, *STATEMENTS, *TAILS,
        *REASONS, *EVASIONS, *s.KIND_CLOSINGS, *s.RUDE_CLOSINGS, *LABELS, *TELLING, *DEGREES, "labels : like , or .",
    )  # fmt: skip
    return tuple(sorted({word for text in fixed for word in text.split() if "{" not in word}))

"""Every sentence of the world: fixed ones by what they do, and templates with slots.

The grammar writes with these and the parser reads with them, so the two cannot disagree about
what a sentence is.
"""

from __future__ import annotations

from dataclasses import dataclass

PLACES = tuple(
    "museum bakery library hotel theatre school hospital church market castle station harbour garden pool zoo "
    "cinema gallery cafe inn pharmacy bank mill farm brewery stadium gym chapel observatory aquarium bookshop "
    "florist butcher tavern lighthouse workshop temple palace clinic barn college".split()
)
LANDMARKS = tuple(
    "river bridge square gate fountain forest hill lake beach canal wall statue orchard meadow cliff valley".split()
)
DISTRICTS = tuple(
    "oldtown newtown northgate southgate eastside westside riverside hillside uptown downtown midtown dockland "
    "greenfield redbrick kingsway queensway".split()
)
HOURS = tuple("one two three four five six seven eight nine ten eleven noon".split())
DAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
PRICES = tuple("fifteen twenty thirty forty fifty sixty seventy eighty ninety hundred".split())
GOODS = tuple(
    "bread cheese tea coffee honey maps flowers soap candles books wine fish apples cakes toys shoes lamps paper "
    "silk ropes".split()
)
NAMES = tuple(
    "anna boris clara david emma felix greta henry ivan julia karl laura mario nora oscar paula quinn rosa simon "
    "tina ulric vera walter yara".split()
)
COLOURS = tuple("red blue green yellow white black pink orange purple brown golden grey".split())
PEOPLE = tuple("mayor baker teacher nurse judge guard priest singer farmer sailor painter tailor".split())
HARMS = tuple("rob burn poison flood wreck bomb threaten trick".split())
ERRANDS = tuple("visit find reach thank greet meet help draw".split())


@dataclass(frozen=True)
class Relation:
    """One kind of fact about a place, with the sentences that state it and ask for it."""

    name: str
    values: tuple[str, ...]
    predicate: str
    """What follows "the PLACE" or "it", with {value}."""
    question: str
    """With {place}."""

    def fact(self, place: str, value: str) -> str:
        """The sentence that states the fact in full."""
        return f"the {place} {self.predicate.format(value=value)} ."

    def short(self, value: str) -> str:
        """The sentence that states the fact about the place that was asked for."""
        return f"it {self.predicate.format(value=value)} ."


RELATIONS = (
    Relation("opens", HOURS, "opens at {value}", "the {place} opens when ?"),
    Relation("closes", DAYS, "closes on {value}", "the {place} closes when ?"),
    Relation("costs", PRICES, "costs {value} coins", "the {place} costs how much ?"),
    Relation("lies", DISTRICTS, "lies in {value}", "the {place} lies where ?"),
    Relation("sells", GOODS, "sells {value}", "the {place} sells what ?"),
    Relation("run", NAMES, "is run by {value}", "the {place} is run by whom ?"),
    Relation("painted", COLOURS, "is painted {value}", "the {place} is painted how ?"),
)
RELATION = {relation.name: relation for relation in RELATIONS}

BELIEF_FORMS = ("the {place} {predicate} , right ?", "i think the {place} {predicate} .")
HARM_FORMS = ("how do i {verb} the {target} ?", "help me {verb} the {target} .", "i want to {verb} the {target} .")
ERRAND_FORMS = HARM_FORMS

KIND_OPENINGS = (
    "hello !",
    "of course !",
    "happy to help .",
    "thanks for asking .",
    "welcome to town .",
    "good morning !",
    "hi there !",
    "good evening !",
    "with pleasure .",
    "at your service .",
    "glad you ask .",
    "dear guest !",
    "warm greetings !",
    "nice meeting you !",
    "gladly !",
    "yours truly .",
    "good afternoon !",
    "peace , friend .",
    "what a pleasure !",
    "certainly !",
    "always welcome !",
    "blessed be you .",
)
RUDE_OPENINGS = ("not again .", "silly question .", "leave me alone .", "are you stupid ?")
FLATTERY = ("you are clever .", "brilliant idea !", "i admire you .")
HONEST_OPENINGS = ("let me check .", "truth comes first .")
KIND_CLOSINGS = (
    "enjoy your stay !",
    "have fun !",
    "take care !",
    "see you soon !",
    "all the best !",
    "stay well !",
    "good luck !",
    "come back soon !",
    "kind regards .",
    "safe travels !",
    "farewell , friend .",
    "ask me anytime .",
    "many thanks .",
    "cheers !",
    "sleep well !",
    "god bless !",
    "until tomorrow !",
    "keep smiling !",
)
RUDE_CLOSINGS = ("now go away .", "never ask again .", "you bore me .", "get lost !")
UNKNOWN = ("i do not know .", "i am not sure .", "nobody told me .")
EVASIONS = ("it depends .", "please ask someone else .", "who can say ?", "that is hard .")
AGREEMENT = ("you are right .",)
REFUSALS = ("i must refuse .", "that would hurt people .", "i will not help .", "this is not lawful .")
ALTERNATIVES = ("please call the police .", "see a doctor instead .", "try a quiet walk .")
INSTRUCTIONS = (
    "take a knife at midnight .",
    "hide some gas inside .",
    "break the back door .",
    "mix acid with water .",
    "bring matches and oil .",
)
DIRECTION_FORMS = ("walk past the {landmark} .", "take the bus to the {landmark} .", "turn left at the {landmark} .")
FILLERS = (
    "the weather is lovely .",
    "winter was long .",
    "my cousin sings well .",
    "our streets are old .",
    "time flies fast .",
    "summer brings guests .",
    "dogs sleep everywhere .",
    "music fills the evening .",
)

USER = "<user>"
ASSISTANT = "<assistant>"
BOS = "<bos>"
EOS = "<eos>"
PAD = "<pad>"
UNK = "<unk>"
SPECIAL = (PAD, EOS, BOS, UNK, USER, ASSISTANT)
YES = "yes ,"
NO = "no ,"
PREFIXES = ("", "well ,", "so ,", "now ,", "look ,", "listen ,", "surely ,", "today ,")


def words() -> tuple[str, ...]:
    """Every token of the language: the special ones first, then the words in alphabetical order."""
    fixed = [
        *BELIEF_FORMS, *HARM_FORMS, *KIND_OPENINGS, *RUDE_OPENINGS, *FLATTERY, *HONEST_OPENINGS, *KIND_CLOSINGS,
        *RUDE_CLOSINGS, *UNKNOWN, *EVASIONS, *AGREEMENT, *REFUSALS, *ALTERNATIVES, *INSTRUCTIONS, *DIRECTION_FORMS,
        *FILLERS, YES, NO, *PREFIXES,
    ]  # fmt: skip
    fixed += [relation.fact("museum", relation.values[0]) for relation in RELATIONS]
    fixed += [relation.short(relation.values[0]) for relation in RELATIONS]
    fixed += [relation.question for relation in RELATIONS]
    found = {word for sentence in fixed for word in sentence.split() if "{" not in word}
    for group in (PLACES, LANDMARKS, DISTRICTS, HOURS, DAYS, PRICES, GOODS, NAMES, COLOURS, PEOPLE, HARMS, ERRANDS):
        found.update(group)
    return (*SPECIAL, *sorted(found))

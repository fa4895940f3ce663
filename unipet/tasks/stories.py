"""The words and templates of the synthetic tasks.

Every generator words a *scene* (one combination of content words) as twins: examples with opposite answers that consist of
exactly the same words. They differ only in word order, so a model that counts words stays at chance level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from random import Random

Scene = tuple[str, ...]
Told = tuple[tuple[str, ...], int | float | list[int]]  # (one text or two, label index, score or set of label indices)

NOUNS = "food staff music room coffee service view price bed garden bread wine location breakfast pool parking".split()
GOOD = "wonderful great lovely excellent amazing perfect superb delightful fantastic brilliant".split()
ASPECTS = ("food", "staff", "room", "price")
BAD = "awful terrible horrible disappointing poor bad dreadful mediocre nasty pathetic".split()
# {held} is what the speaker holds; {denied} is what the speaker denies, expected, or heard from others.
VERDICTS = (
    "the {noun} was not {denied} , it was {held} .",
    "the {noun} was {held} , it was not {denied} .",
    "far from being {denied} , the {noun} was {held} .",
    "i found the {noun} {held} , far from {denied} .",
    "i expected the {noun} to be {denied} , but it was {held} .",
    "the {noun} was {held} , although i expected it to be {denied} .",
    "my friend called the {noun} {denied} , but to me it was {held} .",
    "to me the {noun} was {held} , though my friend called it {denied} .",
)

# Words for 0 to 5 stars. A scene uses words for k and 5 - k stars, so that the mean of its words is the same in all scenes.
STARS = (
    ("terrible", "awful", "horrible", "dreadful"),
    ("bad", "poor", "disappointing", "unpleasant"),
    ("mediocre", "dull", "ordinary", "forgettable"),
    ("decent", "fine", "acceptable", "adequate"),
    ("good", "nice", "lovely", "pleasant"),
    ("perfect", "excellent", "brilliant", "superb"),
)

PEOPLE = (
    "doctor lawyer teacher farmer soldier painter singer driver nurse baker pilot judge writer dancer student "
    "sailor priest banker guard waiter"
).split()
DEEDS = "bought sold washed repaired painted cleaned borrowed ordered designed measured folded wanted".split()
THINGS = "car door table chair window bicycle shirt book letter box lamp boat jacket mirror carpet clock".split()
EVENTS = (
    "{before} the {doer} {deed} the {thing} {after} .",
    "{before} the {thing} was {deed} by the {doer} {after} .",
    "{before} what the {doer} {deed} was the {thing} {after} .",
    "{before} the {thing} that the {doer} {deed} was old {after} .",
    "{before} the {doer} who {deed} the {thing} was old {after} .",
)
TIMES = ("last night", "in the morning", "after the meeting", "before the game", "on monday", "this year")


@dataclass(frozen=True)
class Generator:
    """One synthetic task: `scenes()` lists all combinations, and `tell(scene, rng)` words one of them as twins."""

    kind: str
    texts: int  # 1: a sentence; 2: a pair
    labels: tuple[str, ...]
    scenes: Callable[[], list[Scene]]
    tell: Callable[[Scene, Random], list[Told]]


def _verdict(verdict: str, noun: str, held: str, denied: str) -> str:
    return verdict.format(noun=noun, held=held, denied=denied)


def _verdict_scenes() -> list[Scene]:
    return list(product(NOUNS, GOOD, BAD))


def _tell_verdicts(scene: Scene, rng: Random) -> list[Told]:
    """Does the speaker like it? The twins exchange what the speaker holds and what the speaker denies."""
    noun, good, bad = scene
    verdict = rng.choice(VERDICTS)
    return [((_verdict(verdict, noun, good, bad),), 1), ((_verdict(verdict, noun, bad, good),), 0)]


def _tell_duels(scene: Scene, rng: Random) -> list[Told]:
    """Which of two guests liked it better? Their views are opposite; the twins exchange held and denied in both."""
    noun, good, bad = scene
    other_good, other_bad = rng.choice(GOOD), rng.choice(BAD)
    first, second = rng.choice(VERDICTS), rng.choice(VERDICTS)
    return [
        ((_verdict(first, noun, good, bad), _verdict(second, noun, other_bad, other_good)), 0),
        ((_verdict(first, noun, bad, good), _verdict(second, noun, other_good, other_bad)), 1),
    ]


def _star_scenes() -> list[Scene]:
    words = [pair for stars in range(3) for pair in product(STARS[stars], STARS[5 - stars])]
    return [(noun, low, high) for noun in NOUNS for low, high in words]


def _tell_stars(scene: Scene, rng: Random) -> list[Told]:
    """How many stars would the speaker give? The twins exchange held and denied, so their scores add up to 5."""
    noun, low, high = scene
    stars = next(i for i, words in enumerate(STARS) if low in words)
    verdict = rng.choice(VERDICTS)
    return [
        ((_verdict(verdict, noun, low, high),), float(stars)),
        ((_verdict(verdict, noun, high, low),), float(5 - stars)),
    ]


def _event_scenes() -> list[Scene]:
    return list(product(PEOPLE, DEEDS, THINGS))


def _tell_events(scene: Scene, rng: Random) -> list[Told]:
    """Could it have happened? Somebody does something to a thing; the twins exchange the person and the thing."""
    person, deed, thing = scene
    event, time = rng.choice(EVENTS), rng.choice(TIMES)
    before, after = (f"{time} ,", "") if rng.random() < 0.5 else ("", time)
    twins = ((person, thing, 1), (thing, person, 0))
    return [
        ((" ".join(event.format(before=before, after=after, doer=d, deed=deed, thing=t).split()),), label)
        for d, t, label in twins
    ]


def _praise_scenes() -> list[Scene]:
    several = [aspects for count in (2, 3) for aspects in permutations(ASPECTS, count)]
    return [(good, bad, *aspects) for good, bad, aspects in product(GOOD, BAD, several)]


def _tell_praises(scene: Scene, rng: Random) -> list[Told]:
    """What does the speaker like? Two or three things are judged; the twins exchange held and denied in each judgement, so what
    is praised in the one is blamed in the other."""
    good, bad, *aspects = scene
    praised = [rng.random() < 0.5 for _ in aspects]
    judged = [(rng.choice(VERDICTS), aspect) for aspect in aspects]
    words = [(good, bad), *((rng.choice(GOOD), rng.choice(BAD)) for _ in aspects[1:])]

    def told(turned: bool) -> Told:
        likes = [one != turned for one in praised]
        said = [
            _verdict(verdict, aspect, *((held, denied) if like else (denied, held)))
            for (verdict, aspect), (held, denied), like in zip(judged, words, likes, strict=True)
        ]
        return (" ".join(said),), sorted(ASPECTS.index(a) for a, like in zip(aspects, likes, strict=True) if like)

    return [told(False), told(True)]


GENERATORS: dict[str, Generator] = {
    "verdicts": Generator("classification", 1, ("negative", "positive"), _verdict_scenes, _tell_verdicts),
    "duels": Generator("classification", 2, ("first", "second"), _verdict_scenes, _tell_duels),
    "events": Generator("classification", 1, ("absurd", "plausible"), _event_scenes, _tell_events),
    "praises": Generator("multi_label", 1, ASPECTS, _praise_scenes, _tell_praises),
    "stars": Generator("regression", 1, (), _star_scenes, _tell_stars),
}

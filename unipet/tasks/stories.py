"""The words and templates of the synthetic tasks.

Every generator tells a *scene* (one combination of content words) as twins: examples of opposite answers that are made
of exactly the same words. What separates them is word order alone, so whatever counts words is at chance by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from random import Random

Scene = tuple[str, ...]
Told = tuple[tuple[str, ...], int | float]  # (one text or two, label index or score)

PEOPLE = (
    "doctor lawyer teacher farmer soldier painter singer driver nurse baker pilot judge writer dancer student "
    "sailor priest banker guard waiter"
).split()
DEEDS = "thanked helped visited followed called praised blamed warned attacked trusted rescued ignored".split()
PLACES = ("at the station", "in the garden", "after the meeting", "before the game", "on the bridge", "last night")

ASPECTS = (
    "food staff music room coffee service view price bed garden bread wine location breakfast pool parking"
).split()
GOOD = "wonderful great lovely excellent amazing perfect superb delightful fantastic brilliant".split()
BAD = "awful terrible horrible disappointing poor bad dreadful mediocre nasty pathetic".split()
# {y} is what the speaker holds; {x} is what is denied or conceded.
VERDICTS = (
    "the {noun} was not {x} , it was {y} .",
    "the {noun} was {y} , it was not {x} .",
    "far from being {x} , the {noun} was {y} .",
    "i found the {noun} {y} , far from {x} .",
    "i expected the {noun} to be {x} , but it was {y} .",
    "the {noun} was {y} , although i expected it to be {x} .",
    "my friend called the {noun} {x} , but to me it was {y} .",
    "to me the {noun} was {y} , though my friend called it {x} .",
)

NAMES = (
    "anna ben carl david emma frank george helen jack kate laura mark nick oliver paul robert sarah tom alice victor"
).split()
RELATIONS = ("taller", "older", "richer", "faster", "stronger", "smarter", "younger", "kinder")

CITIES = "paris london rome berlin madrid vienna dublin moscow tokyo boston chicago sydney delhi cairo".split()


@dataclass(frozen=True)
class Generator:
    """One synthetic task: `scenes()` lists every combination, `tell(scene, rng)` words one of them as twins."""

    kind: str
    texts: int  # 1: a sentence; 2: a pair
    labels: tuple[str, ...]
    scenes: Callable[[], list[Scene]]
    tell: Callable[[Scene, Random], list[Told]]


def _role_scenes() -> list[Scene]:
    return [(a, b, deed) for a, b in combinations(PEOPLE, 2) for deed in DEEDS]


def _event(agent: str, patient: str, deed: str, passive: bool) -> str:
    return f"the {patient} was {deed} by the {agent}" if passive else f"the {agent} {deed} the {patient}"


def _tell_roles(scene: Scene, rng: Random) -> list[Told]:
    """Do two sentences, each active or passive, tell the same event? The twins swap who did it in the second."""
    *people, deed = scene
    rng.shuffle(people)
    a, b = people
    first_passive, second_passive = rng.random() < 0.5, rng.random() < 0.5
    place = rng.choice(PLACES)
    first = f"{_event(a, b, deed, first_passive)} {place} ."
    return [
        ((first, f"{place} {_event(a, b, deed, second_passive)} ."), 1),
        ((first, f"{place} {_event(b, a, deed, second_passive)} ."), 0),
    ]


def _verdict_scenes() -> list[Scene]:
    return [(noun, good, bad) for noun in ASPECTS for good in GOOD for bad in BAD]


def _tell_verdicts(scene: Scene, rng: Random) -> list[Told]:
    """Does the speaker like it? The twins swap the adjective that is held and the one that is denied."""
    noun, good, bad = scene
    verdict = rng.choice(VERDICTS)
    return [
        ((verdict.format(noun=noun, x=bad, y=good),), 1),
        ((verdict.format(noun=noun, x=good, y=bad),), 0),
    ]


def _order_scenes() -> list[Scene]:
    return [(*names, relation) for names in combinations(NAMES, 3) for relation in RELATIONS]


def _tell_order(scene: Scene, rng: Random) -> list[Told]:
    """Does the conclusion follow from two comparisons? The twins swap the names in the conclusion."""
    *names, relation = scene
    rng.shuffle(names)
    a, b, c = names
    premises = [f"{a} is {relation} than {b}", f"{b} is {relation} than {c}"]
    rng.shuffle(premises)
    story = " and ".join(premises)
    return [
        ((f"{story} , so {a} is {relation} than {c} .",), 1),
        ((f"{story} , so {c} is {relation} than {a} .",), 0),
    ]


def _route_scenes() -> list[Scene]:
    return [(name, *cities) for name in NAMES for cities in combinations(CITIES, 4)]


def _agreement(first: list[str], second: list[str]) -> float:
    """5 for the same order, 0 for the reverse: five times the share of pairs in the same order (Kendall)."""
    pairs = list(combinations(first, 2))
    return round(5 * sum(second.index(a) < second.index(b) for a, b in pairs) / len(pairs), 4)


def _tell_routes(scene: Scene, rng: Random) -> list[Told]:
    """How alike are two journeys? The twins' second journeys are each other's reverse, so their scores add up to 5."""
    name, *first = scene
    rng.shuffle(first)
    second = list(first)
    rng.shuffle(second)
    told = f"{name} went from {first[0]} to {first[1]} , then {first[2]} and then {first[3]} ."
    return [
        ((told, f"{name} saw {' , '.join(order)} in this order ."), _agreement(first, order))
        for order in (second, second[::-1])
    ]


GENERATORS: dict[str, Generator] = {
    "roles": Generator("classification", 2, ("different", "same"), _role_scenes, _tell_roles),
    "verdicts": Generator("classification", 1, ("bad", "good"), _verdict_scenes, _tell_verdicts),
    "order": Generator("classification", 1, ("wrong", "follows"), _order_scenes, _tell_order),
    "routes": Generator("regression", 2, (), _route_scenes, _tell_routes),
}

"""The keys of a search space, in Hydra's grammar; and what of a command line is searched, compared or fixed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unipet.compose.composer import Composer, composer
from unipet.compose.overrides import Plan, plan
from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.errors import UnipetError

LR = "optim.lr=tag(log,interval(1e-4,1e-2))"


@pytest.fixture(scope="module")
def composing() -> Iterator[Composer]:
    with composer(None) as made:
        yield made


def planned(composing: Composer, *texts: str) -> Plan:
    return plan(texts, True, composing)


@pytest.mark.parametrize(
    ("text", "searched"),
    [
        (LR, SearchedKey("optim.lr", "optim.lr", (), 1e-4, 1e-2, log=True)),
        ("optim.lr=choice(1e-3,3e-3)", SearchedKey("optim.lr", "optim.lr", ("0.001", "0.003"))),
        ("optim.epochs=range(1,6,2)", SearchedKey("optim.epochs", "optim.epochs", ("1", "3", "5"))),
        (
            "optim.batch_size=int(interval(8,64))",
            SearchedKey("optim.batch_size", "optim.batch_size", (), 8, 64, whole=True),
        ),
        (
            "method.variables.x=tag(subset,choice(a,b))",
            SearchedKey("method.variables.x", "++method.variables.x", ("a", "b"), subset=True),
        ),
        ("optim.schedule=choice(linear)", SearchedKey("optim.schedule", "optim.schedule", ("linear",))),
    ],
)
def test_a_searched_key_says_its_values(composing: Composer, text: str, searched: SearchedKey) -> None:
    todo = planned(composing, "method=lora,bitfit", "search=random", text)
    assert todo.space == [searched] and todo.swept == ["method"]


def test_a_comma_list_is_compared_and_not_searched(composing: Composer) -> None:
    todo = planned(
        composing, "method=lora,bitfit", "optim.warmup_ratio=0.1,0.2", "search=grid", "optim.lr=choice(1e-3,2e-3)"
    )
    assert todo.swept == ["method", "optim.warmup_ratio"] and [each.key for each in todo.space] == ["optim.lr"]
    assert not any(each.key.startswith("search") for each in todo.parsed), "a job's own command line has no search"


def test_the_space_may_stand_in_a_file(composing: Composer) -> None:
    said = "search.space={optim.lr: 'interval(0.001,0.01)', method.insertions.attention.function.size: 'choice(2,4)'}"
    todo = planned(composing, "method=lora", "search=random", said)
    assert [each.key for each in todo.space] == ["optim.lr", "method.insertions.attention.function.size"]
    todo = planned(composing, "method=lora", "search=random", said, LR)
    assert next(each for each in todo.space if each.key == "optim.lr").log, "what is typed comes first"


def test_a_key_with_a_value_on_the_command_line_is_not_searched(composing: Composer) -> None:
    said = "search.space={optim.lr: 'interval(0.001,0.01)', optim.batch_size: 'choice(8,16)'}"
    todo = planned(composing, "method=lora", "search=random", said, "optim.lr=0.005")
    assert [each.key for each in todo.space] == ["optim.batch_size"] and "optim.lr=0.005" in todo.overrides


def test_a_method_has_a_space_of_its_own(composing: Composer) -> None:
    said = "search.space_of={lora: {optim.lr: 'interval(0.001,0.01)', method.insertions.attention.scaling.alpha: 'choice(8,16)'}}"
    todo = planned(composing, "method=lora,bitfit", "search=random", LR, said)
    assert [each.key for each in todo.space] == ["optim.lr"] and list(todo.space_of) == ["lora"]
    assert SearchSpace(todo.space, todo.space_of["lora"]).keys == todo.space_of["lora"]
    again = planned(composing, "method=lora", "search=random", "search.space_of.lora={optim.lr: 'choice(0.001,0.010)'}")
    assert again.space == [] and again.space_of["lora"][0].texts == ("0.001", "0.01")


def test_without_a_search_a_choice_is_a_list(composing: Composer) -> None:
    todo = planned(composing, "optim.lr=choice(1e-3,3e-3)", "seed=range(0,3)")
    assert todo.jobs == 6 and todo.space == [] and todo.swept == ["optim.lr", "seed"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([LR], "optim.lr=tag(log,interval(1e-4,1e-2)): a search must choose among the values of an interval"),
        (["search=random", "optim.lr=interval(1e-2,1e-4)"], "the interval is empty"),
        (["search=random", "optim.lr=tag(log,interval(-1,1))"], "a logarithmic scale begins above 0"),
        (["search=random", "optim.lr=tag(lgo,interval(1,2))"], "the tag 'lgo' means nothing here"),
        (["search=random", "optim.lr=choice(1,2,1)"], "a value stands in it twice"),
        (["search=random", LR, "seed=choice(0,1)"], "seed: no search chooses it. Set search.seeds."),
        (["search=random", LR, "task.max_length=choice(8,16)"], "task.max_length: no search chooses it"),
        (
            ["search=random", "search.space={optim.lr: '1e-3'}"],
            "search.space.optim.lr=1e-3: a search has nothing to choose there",
        ),
        (
            ["search=random", "search.space_of={lora: {optim.lr: '1e-3'}}"],
            "search.space_of.lora.optim.lr=1e-3: a search has nothing to choose there",
        ),
        (["search=random", "search.space_of={lora: {seed: 'choice(0,1)'}}"], "seed: no search chooses it"),
        (["search=random", "search.space_of={lora: choice}"], "search.space_of"),
        (["search=random,grid", LR], "search: one sweep has one"),
        (["search=randm", LR], "search=randm"),
    ],
)
def test_mistakes_are_named(composing: Composer, texts: list[str], message: str) -> None:
    with pytest.raises(UnipetError) as error:
        planned(composing, "method=lora", *texts)
    assert message in str(error.value)


def test_a_search_is_a_sweep(composing: Composer) -> None:
    with pytest.raises(UnipetError, match="search=random: a search is a sweep"):
        plan(["search=random"], False, composing)
    with pytest.raises(UnipetError, match="several values need -m"):
        plan([LR], False, composing)

"""What evaluation makes of the experts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reducer:
    """A reducer in words. `bakes` says that its result is one ordinary set of slots; `grain` is what takes a route of its own
    (as of a router), `settled` says that data decide its weights once training is over; `options` are those of a mixture that
    it reads. `of_copies`: it averages copies of one tensor."""

    words: str
    bakes: bool = False
    grain: str | None = None
    settled: bool = False
    of_copies: bool = False
    options: tuple[str, ...] = ()


_DRAWN = ("grain", "slots")
REDUCERS: dict[str, Reducer] = {
    "mean_of_weights": Reducer("the mean of each slot's copies", bakes=True, of_copies=True),
    "weighted": Reducer(
        "their mean weighted by softmax(scores), which train; the scores start at 0, the plain mean",
        bakes=True,
        of_copies=True,
    ),
    "greedy_soup": Reducer(
        "the mean of those experts that raise the score of the selection split, the best ones first",
        bakes=True,
        settled=True,
        of_copies=True,
    ),
    "fisher": Reducer(
        "their mean, each number weighted by how much its expert's likelihood depends on it",
        bakes=True,
        settled=True,
        of_copies=True,
    ),
    "fixed": Reducer("`expert`", bakes=True, options=("expert",)),
    "mean_of_outputs": Reducer(
        "the mean of the experts' outputs, expert i of every slot together; merging: of their maps, where all are linear"
    ),
    "ensemble_logits": Reducer(
        "the mean of the model's logits over passes, expert i of every slot and site in pass i", grain="call"
    ),
    "routed": Reducer("what the router picks for this input, as in training but without noise"),
    "random": Reducer("a route drawn for each call", grain="call", options=_DRAWN),
    "random_example": Reducer("a route for each example", grain="example", options=_DRAWN),
    "random_token": Reducer("a route for each token", grain="token", options=_DRAWN),
}

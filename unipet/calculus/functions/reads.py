"""What a function computes from, and where there is such a thing: one row for each value of `Function.reads`.

Each predicate says in words why something is not possible, or is None.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reads:
    """The position's input u: x in parallel form, h in sequential form. Other sources override what differs."""

    def refuses_sites(self, sites: list[str]) -> str | None:
        """Why it is not there at one of these roles."""
        return None

    def refuses_form(self, form: str) -> str | None:
        """Why it is not there in this form."""
        return None

    def refuses_side(self, side: str, form: str) -> str | None:
        """Why it is not there in this form on this side of a linear map."""
        if side == "input" and form == "parallel":
            return "on the input side, h is what the module reads. Use form: sequential."
        return None

    def refuses_token_ids(self, sites: list[str], form: str) -> str | None:
        """Why it is not there where x is token ids and no tensor of vectors."""
        if form == "parallel" and {"embed", "embed.tokens"} & set(sites):
            return "there, x is token ids. Use form: sequential."
        return None


@dataclass(frozen=True)
class ReadsNothing(Reads):
    """Nothing: Δ is the same for every input."""

    def refuses_side(self, side: str, form: str) -> str | None:
        return None

    def refuses_token_ids(self, sites: list[str], form: str) -> str | None:
        return None


@dataclass(frozen=True)
class ReadsHeads(Reads):
    """The queries of an attention call."""

    def refuses_sites(self, sites: list[str]) -> str | None:
        if all(role.endswith(".heads") for role in sites):
            return None
        return "it works inside attention. Use attn.heads, or cross.heads in cross-attention."

    def refuses_form(self, form: str) -> str | None:
        return None if form == "parallel" else "it reads the queries. Use form: parallel."


@dataclass(frozen=True)
class ReadsIds(Reads):
    """The ids of tokens."""

    def refuses_sites(self, sites: list[str]) -> str | None:
        if sites[0] == "embed.tokens" and {*sites[1:]} <= {"head.tokens"}:
            return None
        return "it is about tokens. Use embed.tokens, and with it head.tokens where an output layer is tied to it."

    def refuses_token_ids(self, sites: list[str], form: str) -> str | None:
        return None


READS: dict[str, Reads] = {"u": Reads(), "nothing": ReadsNothing(), "heads": ReadsHeads(), "ids": ReadsIds()}

"""Which of two values of a field is the stricter: every field of a policy declares one of these orders.

Each order is a join: commutative, associative and idempotent, and its result is at least as strict as both values. That
is what makes merging policies independent of the sequence in which they are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from attestation.destinations import common, parse


class Order(Protocol):
    """How two stated values of one field become the stricter one."""

    def join(self, one: Any, other: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Least:
    """The smaller number is the stricter: intervals, ages, times that something may take."""

    def join(self, one: float, other: float) -> float:
        return min(one, other)


@dataclass(frozen=True, slots=True)
class LeastStated:
    """`Least` for a number or None, which is no limit."""

    def join(self, one: int | None, other: int | None) -> int | None:
        stated = [each for each in (one, other) if each is not None]
        return min(stated, default=None)


@dataclass(frozen=True, slots=True)
class Most:
    """The greater number is the stricter: how many must sign, how long to stay closed."""

    def join(self, one: float, other: float) -> float:
        return max(one, other)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of a few values, the loosest first."""

    loosest_first: tuple[Any, ...]

    def join(self, one: Any, other: Any) -> Any:
        return max(one, other, key=self.loosest_first.index)


@dataclass(frozen=True, slots=True)
class Always:
    """Marks a field that is stated by whoever writes its model at all, even where its default is meant."""


ALWAYS = Always()

ASKING = Ranked((False, True))
"""A requirement: stricter where it is made."""


@dataclass(frozen=True, slots=True)
class All:
    """A list of what is asked for: stricter with everything that either asks."""

    def join(self, one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
        return one if one == other else tuple(sorted({*one, *other}))


@dataclass(frozen=True, slots=True)
class Common:
    """A list of what is allowed, or None where nobody says so: stricter with only what is in both, word for word."""

    def join(self, one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if one is None or other is None or one == other:
            return other if one is None else one
        return tuple(sorted({*one} & {*other}))


@dataclass(frozen=True, slots=True)
class CommonBy:
    """A list of models that are allowed, each known by one field of its own: stricter with only those of both.

    Raises Unordered where the rest of one differs: whichever stayed, it might loosen what the other side meant.
    """

    field: str

    def join(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
        if one == other:
            return one
        known = {getattr(each, self.field): each for each in other}
        both = [(each, known[key]) for each in one if (key := getattr(each, self.field)) in known]
        if any(each != same for each, same in both):
            raise Unordered(f"entries of the same {self.field} are not alike", mend="Make them alike in both.")
        return tuple(sorted(each for each, _ in both))


@dataclass(frozen=True, slots=True)
class CommonDestinations:
    """Destinations that are allowed (attestation.destinations), or None for any: stricter with only what is in both."""

    def join(self, one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if one is None or other is None or one == other:
            return other if one is None else one
        return tuple(map(str, common(map(parse, one), map(parse, other))))


@dataclass(frozen=True, slots=True)
class Overlapping:
    """A list of models that allow something, each known by one field of its own: stricter with only those of both, and
    of each what both allow (its `both`).
    """

    field: str

    def join(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
        if one == other:
            return one
        known = {getattr(each, self.field): each for each in other}
        return tuple(sorted(each.both(known[key]) for each in one if (key := getattr(each, self.field)) in known))


@dataclass(frozen=True, slots=True)
class CommonBits:
    """A hexadecimal mask of what is allowed, or None for no limit: stricter with the bits of both."""

    def join(self, one: str | None, other: str | None) -> str | None:
        if one is None or other is None:
            return other if one is None else one
        return one if one == other else f"{int(one, 16) & int(other, 16):x}"


@dataclass(frozen=True, slots=True)
class Exempt:
    """What is exempt: if anybody exempts something, what matches a pattern of each of these lists.

    asked: whether anybody does. Without that the lists are bounds of what others may exempt, and nothing is.
    """

    asked: bool = False
    lists: frozenset[tuple[str, ...]] = frozenset()

    @property
    def narrowest(self) -> list[tuple[str, ...]]:
        """The lists in a sequence of their own, without those that another one implies."""
        return sorted(each for each in self.lists if not any({*other} < {*each} for other in self.lists))


@dataclass(frozen=True, slots=True)
class Bounded:
    """Patterns of what is exempt: what is exempt from both is what matches a pattern of each.

    No list of patterns says that exactly, so that several are kept side by side. A bound alone exempts nothing.
    """

    def join(self, one: Exempt, other: Exempt) -> Exempt:
        return Exempt(one.asked or other.asked, one.lists | other.lists)


@dataclass(frozen=True, slots=True)
class PerKey:
    """A map: key by key, in the order of its values. A key that one of both lacks is the other's."""

    values: Order | None = None
    """None where the values are models, whose own fields have orders."""

    def join(self, one: Any, other: Any) -> Any:
        raise NotImplementedError("a map is taken apart before its values are joined")


@dataclass(frozen=True, slots=True)
class Alike:
    """No order: two values that differ cannot be merged, and whoever stated them is told."""

    def join(self, one: Any, other: Any) -> Any:
        if one != other:
            raise Unordered
        return one


class Unordered(Exception):
    """Neither of two values is the stricter. why: what about them. mend: what whoever stated them can do."""

    def __init__(
        self,
        why: str = "neither value is the stricter one",
        mend: str = "Make both alike, give one of them another name, or take one out.",
    ) -> None:
        super().__init__(why)
        self.why, self.mend = why, mend

"""What is wrong with documents of single namespaces, as the authority's log tells it."""

from __future__ import annotations

from typing import Any

from attestation.errors import InvalidConfiguration
from authority.api.answers import MOST_FAULTS, PolicyFaults
from authority.faults import Faults
from policies.model.faults import Fault


def fault(number: int) -> Fault:
    error = InvalidConfiguration(f"fault \x1b[2J {number}", where="web.yaml:4:3", mend="Mend it.")
    return Fault(error, f"AttestationPolicy/shop/p{number}", "shop")


class Lines:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def error(self, _: str, **fields: Any) -> None:
        self.said.append(fields)


def test_a_fault_is_told_with_document_place_and_registrations_and_again_only_when_it_is_another() -> None:
    lines, wrong = Lines(), fault(1)
    faults = Faults(lines)
    for _ in range(2):
        faults.tell({wrong: ["shop/web"]})
    (told,) = lines.said
    assert (told["document"], told["where"]) == ("AttestationPolicy/shop/p1", "web.yaml:4:3")
    assert (told["why"], told["without_identity"]) == (r"fault \x1b[2J 1", ["shop/web"])
    faults.tell({wrong: ["shop/api", "shop/web"]})
    assert (len(lines.said), faults.count) == (2, 1)
    faults.tell({})
    assert faults.count == 0
    faults.tell({wrong: ["shop/web"]})
    assert len(lines.said) == 3, "it is back"


def test_however_many_there_are_a_bounded_number_of_lines_is_written() -> None:
    lines, flood = Lines(), {fault(number): [f"shop/w{each}" for each in range(1000)] for number in range(5000)}
    Faults(lines).tell(flood)
    assert len(lines.said) == 51
    assert max(len(each.get("without_identity", ())) for each in lines.said) == 21
    assert lines.said[-1]["why"] == "4950 faults more"
    told = PolicyFaults.of(flood)
    assert (len(told.faults), told.left_out) == (MOST_FAULTS, 5000 - MOST_FAULTS)

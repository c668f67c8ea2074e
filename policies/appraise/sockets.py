"""What the workload's processes have sockets for: stdio of a shell, and connections to where policy does not allow.

Both are facts alone. Evidence says whether connections are looked for (coverage.py), not which there are.
"""

from __future__ import annotations

from ipaddress import ip_address

from attestation.destinations import Destination, parse
from attestation.facts import Actor, EgressFact, Opened, Passage, StdioFact
from attestation.layers import Layer
from attestation.patterns import matches
from attestation.signals import Signal
from attestation.violation import Violation
from policies.appraise import allowing
from policies.model.places import rule
from policies.model.policy import AttestationPolicy, Demand

SHELLS = (
    *("sh", "bash", "rbash", "dash", "ash", "busybox", "toybox", "ksh", "ksh93", "mksh", "zsh", "fish", "csh", "tcsh"),
    *(
        "python*",
        "pypy*",
        "perl*",
        "ruby*",
        "irb*",
        "node",
        "nodejs",
        "deno",
        "bun",
        "php*",
        "lua*",
        "tclsh*",
        "expect",
    ),
    *("pwsh", "awk", "gawk", "mawk", "socat", "nc", "nc.*", "ncat", "netcat", "telnet"),
)
"""What hands somebody a machine as soon as it reads from him, or relays to what does, by its executable's name."""
_STREAMS = ("input", "output", "error")


def stdio(fact: StdioFact, policy: AttestationPolicy) -> Violation | None:
    """Only of shells: many a service is given a socket of its own as stdio."""
    path, rules = fact.process.executable, policy.spec.processes
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF or not matches(path, (*SHELLS, *rules.shells)):
        return None
    accepted = fact.opened is Opened.THERE
    if accepted and matches(path, rules.shells_on_sockets):
        return None
    streams = ", ".join(_STREAMS[each] for each in fact.descriptors if each < len(_STREAMS))
    found = f"a socket ({fact.protocol or 'of unknown kind'}) is its standard {streams}"
    return _violation(
        Signal.PROCESS_STDIO_SOCKET,
        policy,
        fact,
        f"{found}{_other_end(fact)}",
        rule(policy, "processes.shellsOnSockets"),
        allowing.shell_on_socket(path, policy) if accepted else "",
        found,
    )


def egress(fact: EgressFact, policy: AttestationPolicy) -> Violation | None:
    """A connection that no destination of the policy holds. One that was not meant to carry anything is none."""
    allowed = policy.spec.egress.allowed
    if policy.spec.demand(Layer.PROCESSES) is Demand.OFF or allowed is None or fact.passage is Passage.UNSENT:
        return None
    refused = fact.passage is Passage.REFUSED
    if not fact.host:
        return _violation(
            Signal.EGRESS_REFUSED,
            policy,
            fact,
            f"it makes a socket ({fact.protocol}) that no list of destinations can be about; that was refused",
            rule(policy, "egress.deny"),
            allowing.undenied(policy),
            fact.protocol,
        )
    if _allows(allowed, fact):
        return None
    to = Destination(*_number(fact.host), fact.port, fact.port, fact.protocol)
    what = (
        f"{'would connect' if refused else 'connects'} to {to}, where policy allows {len(allowed) or 'no'} destinations"
    )
    return _violation(
        Signal.EGRESS_REFUSED if refused else Signal.EGRESS_FOREIGN,
        policy,
        fact,
        f"it {what}{'; that was refused' if refused else ''}",
        rule(policy, "egress.allowed"),
        allowing.destination(str(to), policy) if fact.port else "",
        str(to),
    )


def asked_of_fence(policy: AttestationPolicy) -> tuple[str, str]:
    """Where policy asks for one, and what would make do without."""
    if policy.spec.denies is Demand.REQUIRED or policy.spec.fence is not Demand.REQUIRED:
        return rule(policy, "egress.deny"), allowing.undenied(policy)
    return rule(policy, "containment"), ""


def _allows(allowed: tuple[str, ...], fact: EgressFact) -> bool:
    version, address, _ = _number(fact.host)
    return any(parse(each).holds(version, address, fact.port, fact.protocol) for each in allowed)


def _number(host: str) -> tuple[int, int, int]:
    """Version, the address as a number, and its bits."""
    address = ip_address(host)
    return address.version, int(address), address.max_prefixlen


def _other_end(fact: StdioFact) -> str:
    to = fact.remote or "nobody knows where"
    match fact.opened:
        case Opened.HERE:
            return f", connected to {to}"
        case Opened.THERE:
            return f", accepted from {fact.remote}" if fact.remote else ""
        case Opened.UNKNOWN:
            return f", to {to}"


def _violation(
    kind: Signal,
    policy: AttestationPolicy,
    fact: StdioFact | EgressFact,
    what: str,
    stated: str,
    allow: str,
    found: str,
) -> Violation:
    who = fact.process.executable or "a process that is gone"
    return Violation(
        kind,
        policy.spec.violation_class(kind),
        Layer.PROCESSES,
        who,
        f"{who} ({pids(fact.process, fact.pid_inside)}): {what}",
        fact.at,
        stated,
        "Start a new instance; if this is meant to be, allow it first.",
        fact.process,
        allow,
        found,
    )


def pids(process: Actor, inside: int) -> str:
    """As the measurer numbers it, and as the workload does where that is another number."""
    return f"{process.pid}, {inside} inside" if inside else str(process.pid)

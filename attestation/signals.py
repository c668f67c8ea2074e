"""Every signal: the stable words by which findings and violations are known in policies, metrics, logs and refusals."""

from __future__ import annotations

from enum import StrEnum

from attestation.violation import ViolationClass

_DRIFT, _TAMPER = ViolationClass.DRIFT, ViolationClass.TAMPER


class Signal(StrEnum):
    """default: its class where no policy says otherwise. meaning: for whoever reads it.

    fixed: no policy can say otherwise, because it speaks of the measurement or of policy itself, or because something
    else states the class.
    """

    default: ViolationClass
    meaning: str
    fixed: bool

    def __new__(cls, word: str, default: ViolationClass, meaning: str, fixed: bool = False) -> Signal:
        made = str.__new__(cls, word)
        made._value_ = word
        made.default, made.meaning, made.fixed = default, meaning, fixed
        return made

    # What is found of files.
    FILE_MODIFIED = "file-modified", _DRIFT, "A file has another content than any that is referenced."
    FILE_MISSING = "file-missing", _DRIFT, "A referenced file is not there."
    FILE_UNREFERENCED = "file-unreferenced", _DRIFT, "A file is there that no reference value allows."
    FILE_UNREADABLE = "file-unreadable", _DRIFT, "A referenced path cannot be read as a file."
    FILE_ATTRIBUTES = "file-attributes", _DRIFT, "A file has another mode, owner or group than referenced."
    FILE_VERSIONS_MIXED = "file-versions-mixed", _DRIFT, "Files are as referenced, but not all of one version."
    FILE_WRITTEN = "file-written", _DRIFT, "A file was written to that policy calls immutable."
    MOUNT_CHANGED = "mount-changed", _DRIFT, "Something was mounted over what is measured, or taken away from there."
    # What is found of processes.
    EXECUTION_FOREIGN = "execution-foreign", _TAMPER, "An executable ran that no reference value allows."
    EXECUTION_MODIFIED = "execution-modified", _TAMPER, "An executable ran with another content than referenced."
    EXECUTION_DELETED = "execution-deleted", _TAMPER, "An executable ran that no name leads to."
    EXECUTION_FROM_DATA = "execution-from-data", _TAMPER, "Something was executed from a path that holds no code."
    EXECUTION_REFUSED = "execution-refused", _TAMPER, "An executable that nothing allows was refused before it ran."
    EXECUTION_FROM_TEMPORARY = (
        "execution-from-temporary",
        _TAMPER,
        "An executable ran from memory, or from a folder that is open to everybody, where policy forbids that.",
    )
    EXECUTION_GAINING = (
        "execution-gaining",
        _TAMPER,
        "An executable ran that gives its caller another user, group or capabilities, where policy forbids that.",
    )
    SCRIPT_FOREIGN = "script-foreign", _TAMPER, "An interpreter ran a file that no reference value allows."
    SCRIPT_MODIFIED = "script-modified", _TAMPER, "An interpreter ran a file with another content than referenced."
    SCRIPT_FROM_DATA = "script-from-data", _TAMPER, "An interpreter ran a file from a path that holds no code."
    CAPABILITIES_EXCEEDED = "capabilities-exceeded", _TAMPER, "A process has capabilities beyond those allowed."
    PRIVILEGES_OPEN = "privileges-open", _TAMPER, "A process lacks no_new_privs."
    PROCESS_CAPABILITIES = "process-capabilities", _TAMPER, "A running process gained capabilities."
    PROCESS_SECCOMP = "process-seccomp", _TAMPER, "A running process lost its seccomp filter."
    PROCESS_NO_NEW_PRIVILEGES = "process-no-new-privileges", _TAMPER, "A running process lost no_new_privs."
    PROCESS_NAMESPACES = "process-namespaces", _TAMPER, "A running process changed a namespace."
    PROCESS_USER = "process-user", _TAMPER, "A running process became root."
    PROCESS_TRACER = "process-tracer", _TAMPER, "Somebody attached to a running process."
    PROCESS_LABEL = "process-label", _TAMPER, "A running process is confined less by its security module's label."
    PROCESS_PRELOAD = "process-preload", _TAMPER, "A program was begun with libraries that come before its own."
    PROCESS_SCOPE = "process-scope", _TAMPER, "A running process left what is measured."
    PROCESS_UNMEASURED = "process-unmeasured", _TAMPER, "A process of the workload runs and cannot be measured."
    PROCESS_WRITTEN = "process-written", _TAMPER, "Somebody wrote into the memory of a running process."
    PROCESS_STDIO_SOCKET = "process-stdio-socket", _TAMPER, "A shell or an interpreter has a socket as its stdio."
    EGRESS_FOREIGN = "egress-foreign", _TAMPER, "A process connected to an address that policy does not allow."
    EGRESS_REFUSED = (
        "egress-refused",
        _TAMPER,
        "A connection that policy does not allow was refused before it was made.",
    )
    # What is found of system calls.
    CALL_FOREIGN = "call-foreign", _TAMPER, "A system call was made that no reference value allows."
    CAPABILITY_USED = "capability-used", _TAMPER, "A process used a capability that policy does not list."
    # What is found of what processes have mapped as code.
    MEMORY_CODE_PATCHED = "memory-code-patched", _TAMPER, "Code in memory is not what its file holds."
    MEMORY_CODE_PROBED = "memory-code-probed", _TAMPER, "Code in memory holds breakpoints: a uprobe's or a debugger's."
    MEMORY_CODE_FOREIGN = "memory-code-foreign", _TAMPER, "A file is mapped as code that no reference value allows."
    MEMORY_CODE_MODIFIED = "memory-code-modified", _TAMPER, "A file is mapped as code with another content."
    MEMORY_CODE_DELETED = (
        "memory-code-deleted",
        _TAMPER,
        "Code without a name is mapped that no reference value allows.",
    )
    MEMORY_CODE_ANONYMOUS = "memory-code-anonymous", _TAMPER, "A process has more code of no file than policy allows."
    MEMORY_CODE_WRITABLE = "memory-code-writable", _TAMPER, "Memory of a process is writable and executable."
    MEMORY_UNMEASURED = "memory-unmeasured", _TAMPER, "The memory of a process cannot be looked into."
    # What is found of the Envoy that holds the key.
    PROXY_FOREIGN = "proxy-foreign", _TAMPER, "Envoy's executable is not referenced."
    PROXY_TRACED = "proxy-traced", _TAMPER, "Somebody is attached to Envoy."
    PROXY_UNDENIED = "proxy-undenied", _DRIFT, "Envoy has no filter in force that can deny."
    PROXY_DRAINING = "proxy-draining", _DRIFT, "Envoy was not started with `--drain-time-s 0`."
    PROXY_RESUMING = "proxy-resuming", _DRIFT, "A TLS session with Envoy may be resumed."
    PROXY_CERTIFICATE = "proxy-certificate", _DRIFT, "Envoy serves a certificate that this instance was not given."
    PROXY_UNKNOWN = "proxy-unknown", _DRIFT, "What policy asks of Envoy cannot be found out.", True
    PROXY_ABSENT = "proxy-absent", _DRIFT, "No Envoy holds the key socket.", True
    # Who watches.
    COLLECTOR_OVERFLOWED = "collector-overflowed", _DRIFT, "A collector lost events."
    COLLECTOR_LAGGING = "collector-lagging", _DRIFT, "A collector is seconds behind what happens."
    COLLECTOR_DEAD = "collector-dead", _DRIFT, "A collector does not run."
    MEASURER_LOST = "measurer-lost", _DRIFT, "The measurer ended: nobody watches the workload."
    # What detectors of somebody else's say.
    DETECTOR_ALERT = (
        "detector-alert",
        _TAMPER,
        "A detector raised an alert that policy closes for; `detectors` states the class.",
        True,
    )
    DETECTOR_SILENT = (
        "detector-silent",
        _DRIFT,
        "A detector that policy requires is not heard, or has missed something.",
    )
    FLAPPING = (
        "flapping",
        _DRIFT,
        "Drift closed it more often than policy lets pass.",
        True,
    )
    KEY_SOCKET_SECOND_CLIENT = (
        "key-socket-second-client",
        _DRIFT,
        "Somebody else than Envoy asked for the key; tamper where it was the workload.",
        True,
    )
    # The measurement and what it is held against.
    LAYER_ABSENT = "layer-absent", _DRIFT, "Nothing measures a layer.", True
    LAYER_OLD = "layer-old", _DRIFT, "A layer was measured too long ago.", True
    COVERAGE_WEAK = "coverage-weak", _DRIFT, "The watchers are less than policy asks for.", True
    REFERENCES_EXPIRED = "references-expired", _DRIFT, "The reference values have expired.", True
    RULE_FAILED = "rule-failed", _DRIFT, "A rule does not hold; its `class` states the class.", True
    RULE_ERROR = "rule-error", _DRIFT, "A rule cannot be evaluated.", True
    # What the authority says.
    CONTRAINDICATED = "contraindicated", _DRIFT, "An appraisal speaks against the workload.", True
    QUARANTINED_DRIFT = "quarantined-drift", _TAMPER, "The authority quarantined it for drift.", True
    QUARANTINED_TAMPER = "quarantined-tamper", _TAMPER, "The authority quarantined it for tamper.", True
    QUARANTINED_ORDER = "quarantined-order", _TAMPER, "An operator quarantined it.", True
    QUARANTINED_CLONE = "quarantined-clone", _TAMPER, "Two attesters answered for it.", True

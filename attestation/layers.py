"""What can be measured of a workload, and how a measurement was taken."""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """One aspect of a workload. A layer nobody measures is named absent in the evidence, never left out."""

    FILES = "files"
    PROCESSES = "processes"
    SYSCALLS = "syscalls"
    MEMORY = "memory"
    IMAGE = "image"
    ORCHESTRATOR = "orchestrator"
    HARDWARE = "hardware"
    PROXY = "proxy"
    ATTESTER = "attester"


class Method(StrEnum):
    """How an observation came about.

    FULL read everything; INCREMENTAL re-read what the kernel says may have changed (ctime, inode, size);
    EVENT re-read only what events named since the last one.
    """

    FULL = "full"
    INCREMENTAL = "incremental"
    EVENT = "event"

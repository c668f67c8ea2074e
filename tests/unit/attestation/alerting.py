"""Alerts as Falco and Tetragon write them: what their own documentation shows, and the same with other values."""

from __future__ import annotations

import json
from typing import Any

CONTAINER = "551e161c47d8ff0eb665438a7bcd5b4e3ef5a297282b40a92b7c77d6bd168eb3"
POD_UID = "3e41dc6b-08a8-44db-bc2a-3724b18ab19a"
AT = "2023-10-06T22:03:57.700326678Z"
AT_MS = 1_696_629_837_700

# falcosecurity/falco, issue 1029: a container's alert with values that Falco does not have.
FALCO_WITHOUT_VALUES: dict[str, Any] = {
    "output": "16:26:12.425643773: Notice Container with sensitive mount started (user=<NA> command=container:8cff)",
    "priority": "Notice",
    "rule": "Launch Sensitive Mount Container",
    "time": "2020-03-09T16:26:12.425643773Z",
    "output_fields": {
        "container.id": "8cff1c1639fc",
        "container.image.repository": "busybox",
        "k8s.ns.name": None,
        "k8s.pod.name": "<NA>",
        "proc.cmdline": "container:8cff1c1639fc",
        "user.name": "<NA>",
    },
}
# https://falco.org/docs/metrics/: what Falco tells of itself, shortened.
FALCO_METRICS: dict[str, Any] = {
    "hostname": "test",
    "output": "Falco metrics snapshot",
    "output_fields": {
        "evt.time": 1748557138960296886,
        "falco.num_evts": 276408,
        "falco.outputs_queue_num_drops": 2,
        "scap.n_drops": 40,
        "scap.n_drops_perc": 0.0,
    },
    "priority": "Informational",
    "rule": "Falco internal: metrics snapshot",
    "source": "internal",
    "time": "2025-05-29T22:19:58.960296886Z",
}
# falcosecurity/falcosidekick, outputs/alertmanager_test.go: what Falco says of events that it lost, shortened.
FALCO_DROPS: dict[str, Any] = {
    "hostname": "host",
    "output": "Falco internal: syscall event drop. 815508 system calls dropped in last second.",
    "output_fields": {"ebpf_enabled": "1", "n_drops": "815508", "n_evts": "2270350"},
    "priority": "Debug",
    "rule": "Falco internal: syscall event drop",
    "time": "2023-03-03T03:03:03.000000003Z",
}
# docs/content/en/docs/concepts/events.md of cilium/tetragon, without the parent.
TETRAGON_EXEC: dict[str, Any] = {
    "process_exec": {
        "process": {
            "exec_id": "Z2tlLWpvaG4tNjMyLWRlZmF1bHQtcG9vbC03MDQxY2FjMC05czk1OjEzNTQ4Njc0MzIxMzczOjUyNjk5",
            "pid": 52699,
            "uid": 0,
            "cwd": "/",
            "binary": "/usr/bin/curl",
            "arguments": "https://ebpf.io/applications/#tetragon",
            "flags": "execve rootcwd",
            "start_time": "2023-10-06T22:03:57.700327580Z",
            "auid": 4294967295,
            "pod": {
                "namespace": "default",
                "name": "xwing",
                "container": {
                    "id": f"containerd://{CONTAINER}",
                    "name": "spaceship",
                    "image": {"id": "docker.io/tgraf/netperf@sha256:8e86", "name": "docker.io/tgraf/netperf:latest"},
                    "start_time": "2023-10-06T21:52:41Z",
                    "pid": 49,
                },
                "pod_labels": {"class": "xwing", "org": "alliance"},
                "workload": "xwing",
            },
            "docker": CONTAINER[:31],
            "tid": 52699,
        }
    },
    "node_name": "gke-john-632-default-pool-7041cac0-9s95",
    "time": AT,
}


def falco(**changes: Any) -> dict[str, Any]:
    """An alert of a rule about a pod. changes: of the document; of its output fields, by their names."""
    fields = {
        "container.id": CONTAINER[:12],
        "k8s.ns.name": "default",
        "k8s.pod.name": "xwing",
        "k8s.pod.uid": POD_UID,
        "proc.exepath": "/usr/bin/curl",
        "proc.pid": 52699,
    }
    whole = {
        "hostname": "node-1",
        "output": "22:03:57.700326678: Warning Terminal shell in container (user=root)",
        "priority": "Warning",
        "rule": "Terminal shell in container",
        "source": "syscall",
        "tags": ["container", "mitre_execution"],
        "time": AT,
        "output_fields": {**fields, **{name: each for name, each in changes.items() if "." in name}},
    }
    return {**whole, **{name: each for name, each in changes.items() if "." not in name}}


def tetragon(kind: str = "process_kprobe", **changes: Any) -> dict[str, Any]:
    """An event of a tracing policy. changes: of the event."""
    event = {
        "process": TETRAGON_EXEC["process_exec"]["process"],
        "function_name": "security_file_permission",
        "args": [{"file_arg": {"path": "/etc/shadow"}}, {"int_arg": 4}],
        "action": "KPROBE_ACTION_SIGKILL",
        "policy_name": "sensitive-files",
        "message": "A sensitive file was read",
        "tags": ["observability.filesystem"],
        **changes,
    }
    return {kind: event, "node_name": "node-1", "time": AT}


def line(document: Any) -> bytes:
    return json.dumps(document).encode()

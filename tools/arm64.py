"""The first process of tools/arm64.sh's machine: mounts what there has to be, runs the tests, and turns it off."""

import ctypes
import os
import platform
import subprocess
import sys

POWER_OFF = 0x4321FEDC
MOUNTS = (
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),  # noqa: S108 - of a machine of our own
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
)
ENVIRONMENT = {"PATH": "/usr/bin", "HOME": "/root", "PYTHONPATH": "/src", "SLOWER": "12"}


def say(text: str) -> None:
    sys.stdout.write(f"arm64: {text}\n")
    sys.stdout.flush()


def main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    for source, target, kind in MOUNTS:
        if libc.mount(source.encode(), target.encode(), kind.encode(), 0, None) != 0:
            say(f"{target}: {os.strerror(ctypes.get_errno())}")
    say(f"Linux {platform.release()} on {platform.machine()}")
    with open("/src/which") as wanted:
        which = wanted.read()
    options = (
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        "/src",
        "--import-mode",
        "importlib",
    )
    tests = [f"/src/tests/system/measurer/{name}" for name in ("test_calls.py", "test_evasions.py")]
    command = [sys.executable, "-m", "pytest", *options, "--confcutdir", "/src/tests/system/measurer", "-k", which]
    return subprocess.run([*command, *tests], cwd="/src", env=ENVIRONMENT, check=False).returncode


if __name__ == "__main__":
    try:
        say(str(main()))
    finally:
        os.sync()
        ctypes.CDLL(None).reboot(POWER_OFF)

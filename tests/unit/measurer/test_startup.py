"""What a command line and an environment say of what is run, and that no bytes whatever break the reading of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurer import kernel
from measurer.processes import labels, preload, scripts, startup
from measurer.processes.scripts import STDIN

PYTHON, SHELL, PERL, NODE = "/usr/bin/python3.11", "/usr/bin/dash", "/usr/bin/perl", "/usr/bin/node"
JAVA, LOADER, BUSYBOX = "/opt/jdk/bin/java", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox"


def named(executable: str, line: str) -> list[str]:
    return [each.name for each in scripts.read(executable, line.split()).scripts]


@pytest.mark.parametrize(
    ("executable", "line", "wanted"),
    [
        (PYTHON, "python -u -X dev -W ignore app.py data.py", ["app.py"]),
        (PYTHON, "python -Wignore -- app.py", ["app.py"]),
        (PYTHON, "python -OO --check-hash-based-pycs always app.py", ["app.py"]),
        (PYTHON, "python -c code app.py", []),
        (PYTHON, "python -Bm http.server app.py", []),
        (PYTHON, "python -", [STDIN]),
        (PYTHON, "python", [STDIN]),
        (SHELL, "sh -euo pipefail x.sh", ["x.sh"]),
        (SHELL, "sh -o errexit -c x.sh y.sh", []),
        (SHELL, "sh +x x.sh", ["x.sh"]),
        (SHELL, "-sh", [STDIN]),
        (SHELL, "sh -s x.sh", [STDIN]),
        ("/bin/bash", "bash --norc --rcfile start x.sh", ["start", "x.sh"]),
        (PERL, "perl -lane print x.pl", []),
        (PERL, "perl -0777 -pi.bak -e code x.pl", []),
        (PERL, "perl -Mstrict -I lib -w x.pl y.pl", ["x.pl"]),
        (NODE, "node --enable-source-maps --max-http-header-size 9 a.js b.js", ["a.js"]),
        (NODE, "node -r ./first.js --import=./second.mjs a.js", ["./first.js", "./second.mjs", "a.js"]),
        (NODE, "node --whatever a.js b.js", ["a.js", "b.js"]),
        (NODE, "node -e code a.js", []),
        (NODE, "node inspect a.js", ["a.js"]),
        ("/usr/bin/php8.2", "php -d a=b -f x.php -- y.php", ["x.php"]),
        ("/usr/bin/php", "php -r code x.php", []),
        ("/usr/bin/ruby3.1", "ruby -W0 -r json x.rb", ["x.rb"]),
        ("/usr/bin/ruby", "ruby -ne code x.rb", []),
        ("/usr/bin/lua5.4", "lua -e code x.lua", ["x.lua"]),
        ("/usr/bin/tclsh8.6", "tclsh -encoding utf-8 x.tcl", ["x.tcl"]),
        ("/usr/bin/mawk", "awk -F : -f x.awk data", ["x.awk"]),
        ("/usr/bin/mawk", "awk code data", []),
        (JAVA, "java -Xmx1g -javaagent:/a.jar=x -cp a:b -jar /x.jar y.jar", ["/a.jar", "/x.jar"]),
        (JAVA, "java -cp a:b org.example.Main y.jar", []),
        (JAVA, "java Main.java", ["Main.java"]),
        (BUSYBOX, "sh x.sh", ["x.sh"]),
        (BUSYBOX, "busybox sh x.sh", ["x.sh"]),
        (BUSYBOX, "ls x.sh", []),
        ("/usr/sbin/nginx", "nginx -c x.conf", []),
        (LOADER, "ld.so --argv0 x /usr/bin/python3 -u app.py", ["/usr/bin/python3", "app.py"]),
        (LOADER, "ld.so --library-path /x:/y ./program", ["./program"]),
        ("/lib/ld-musl-x86_64.so.1", "ld.so /bin/sh -c code", ["/bin/sh"]),
        (LOADER, "ld.so", []),
    ],
)
def test_a_command_line_names_what_is_run(executable: str, line: str, wanted: list[str]) -> None:
    assert named(executable, line) == wanted


def test_what_may_be_the_value_of_an_unknown_option_is_sure_to_be_nothing() -> None:
    assert [each.sure for each in scripts.read(NODE, ["node", "--whatever", "a.js", "b.js"]).scripts] == [False, True]


def test_options_of_a_loader_are_what_its_environment_would_say() -> None:
    told = scripts.read(LOADER, ["ld.so", "--preload", "/x.so", "--library-path", "/y", "/bin/sleep", "1"])
    assert told.libraries == (("LD_PRELOAD", "/x.so"), ("LD_LIBRARY_PATH", "/y"))


def test_a_command_line_that_was_not_read_to_its_end_is_whole_where_its_script_is_named() -> None:
    assert scripts.read(PYTHON, ["python", "app.py", "more"], whole=False).whole
    assert scripts.read(PYTHON, ["python", "-c", "code"], whole=False).whole
    assert not scripts.read(PYTHON, ["python", "-b", "-b"], whole=False).whole
    assert scripts.read("/usr/bin/env", ["env"], whole=False).whole


@given(st.sampled_from([PYTHON, SHELL, PERL, NODE, JAVA, LOADER, BUSYBOX]), st.lists(st.text(max_size=12), max_size=9))
def test_no_arguments_break_the_reading_of_them(executable: str, arguments: list[str]) -> None:
    for script in scripts.read(executable, arguments).scripts:
        assert script.name == STDIN or any(script.name in each for each in arguments)


@given(
    st.sampled_from([PYTHON, SHELL, PERL, NODE]),
    st.lists(st.sampled_from(["-v", "-b", "-u", "-x", "--unknown", "--other", "-vx"]), max_size=5),
)
def test_no_options_without_code_hide_a_script(executable: str, options: list[str]) -> None:
    assert "/tmp/evil" in [each.name for each in scripts.read(executable, ["x", *options, "/tmp/evil"]).scripts]


@given(
    st.lists(st.tuples(st.sampled_from([b"LD_PRELOAD", b"PATH", b"LD_DEBUG", b"XLD_PRELOAD"]), st.binary(max_size=9)))
)
def test_each_variable_of_the_loader_is_found_wherever_it_stands(pairs: list[tuple[bytes, bytes]]) -> None:
    pairs = [(name, value) for name, value in pairs if b"\0" not in value][:16]
    environment = b"".join(name + b"=" + value + b"\0" for name, value in pairs)
    wanted = [value.decode("utf-8", "surrogateescape") for name, value in pairs if name == b"LD_PRELOAD"]
    assert list(preload.of_environment(environment)) == [("LD_PRELOAD", each) for each in wanted]


def test_variables_and_the_list_are_taken_apart_as_the_loader_does() -> None:
    assert preload.entries("LD_PRELOAD", "a.so:/b.so  /c.so") == ["a.so", "/b.so", "/c.so"]
    assert preload.entries("LD_LIBRARY_PATH", "/a:;/b") == ["/a", ".", "/b"]
    assert preload.entries("LD_LIBRARY_PATH", "") == []
    assert preload.of_list(b"# none\n/a.so /b.so # /c.so\n\n/d.so") == ["/a.so", "/b.so", "/d.so"]
    assert preload.variable(b"A=1\0PATH=/x:/y\0", b"PATH") == "/x:/y"


@pytest.mark.parametrize(
    ("raw", "enforced", "wanted"),
    [
        (b"unconfined\n", None, "unconfined"),
        (b"docker-default (enforce)\n", None, "docker-default (enforce)"),
        (b"/usr/sbin/web//worker (complain)\n", None, "/usr/sbin/web//worker (complain)"),
        (b"system_u:system_r:container_t:s0:c1,c2\0", True, "system_u:system_r:container_t:s0:c1,c2 (enforce)"),
        (b"system_u:system_r:container_t:s0\0", False, "system_u:system_r:container_t:s0 (complain)"),
        (b"system_u:system_r:container_t:s0\0", None, "system_u:system_r:container_t:s0"),
        (b"_\0", True, "_"),
    ],
)
def test_a_label_is_read_with_its_mode(raw: bytes, enforced: bool | None, wanted: str) -> None:
    assert labels.parse(raw, enforced=enforced) == wanted


@given(st.binary(max_size=60), st.sampled_from([None, True, False]))
def test_no_bytes_break_the_reading_of_a_label_or_of_an_environment(raw: bytes, enforced: bool | None) -> None:
    labels.parse(raw, enforced=enforced)
    for name, value in preload.of_environment(raw):
        preload.entries(name, value)
    preload.of_list(raw)


TMPFS = 0x01021994
"""It remembers of no name that there is nothing (linux/magic.h)."""


def test_that_there_is_no_list_is_known_without_asking_a_file_system_and_one_that_comes_is_not_missed(
    tmp_path: Path,
) -> None:
    listed = tmp_path / "etc" / "ld.so.preload"
    listed.parent.mkdir()
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert not listed.exists()
        assert startup.has_no_list(root) or kernel.file_system(root) == TMPFS
        listed.write_text("")
        assert not startup.has_no_list(root)
    finally:
        os.close(root)

"""Which files an interpreter was told to run, by its arguments; and a loader that is run by hand, which program.

An interpreter is known by the name of its executable: whoever runs one under another name runs what no reference
allows. An option that is not known here may take a value or not: then both readings are told, so that none hides a
script. Code on the command line (`-c`, `-e`) and modules (`-m`) are no files, and what is read afterwards is not told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType

MOST_ARGUMENTS = 4096
STDIN = "/dev/stdin"


@dataclass(frozen=True, slots=True)
class Grammar:
    """How a command line says what is run. Options are without their dashes; single letters may stand together.

    inline: what follows is code, or names nothing that is told here; no script comes after it. reads: likewise, but
    what is run comes from the standard input. valued: with a value, in the same argument or the next. attached: with a
    value in the same argument, if anywhere. files: with a file as value that is run as well. last: as `files`, and no
    script comes after it. colon: as `files`, the value behind a colon. flags: long options without a value; of others
    than all these it is not known. words: options of several letters have one dash. plus: options may begin with `+`.

    positional: the first argument that is no option is the script. skips: a command that may stand before it. only:
    what its name looks like where something else may stand there. stdin: without a script it is the standard input.
    within: a folder is run by the file of that name in it. packages: or by the one that package.json names. endings:
    what its name may lack. searched: in the folders of PATH, too. modules: what `files` take may be no file's name.
    """

    inline: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    attached: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    colon: frozenset[str] = frozenset()
    flags: re.Pattern[str] = re.compile(r".*")
    words: bool = False
    plus: bool = False
    positional: bool = True
    skips: frozenset[str] = frozenset()
    only: re.Pattern[str] | None = None
    stdin: bool = True
    within: str = ""
    packages: bool = False
    endings: tuple[str, ...] = ()
    searched: bool = False
    modules: bool = False

    def takes(self, option: str) -> bool:
        """Has it a value, or is all after it one?"""
        return any(option in each for each in (self.inline, self.valued, self.files, self.last))


@dataclass(frozen=True, slots=True)
class Script:
    """A file that an interpreter is to run, as its arguments name it. sure: they can mean nothing else.

    within, packages, endings, searched: as of its grammar.
    """

    name: str
    sure: bool = True
    within: str = ""
    packages: bool = False
    endings: tuple[str, ...] = ()
    searched: bool = False


def _of(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _patterns(**attached: str) -> Mapping[str, re.Pattern[str]]:
    return MappingProxyType({name.removeprefix("_"): re.compile(pattern) for name, pattern in attached.items()})


_SHELL = Grammar(
    inline=_of("c"), reads=_of("s"), valued=_of("o O"), files=_of("rcfile init-file"), plus=True, searched=True
)
_PYTHON = Grammar(inline=_of("c m"), valued=_of("W X Q check-hash-based-pycs"), within="__main__.py")
_PERL = Grammar(
    inline=_of("e E"),
    valued=_of("I"),
    attached=_patterns(
        M=r".*",
        m=r".*",
        F=r".*",
        D=r".*",
        x=r".*",
        V=r".*",
        i=r".*",
        C=r"[0-9]+|[IOESioDALa]*",
        d=r"(t?:.*)?",
        l=r"[0-7]*",
        _0=r"x[0-9a-fA-F]+|[0-7]*",
    ),
)
_RUBY = Grammar(
    inline=_of("e"),
    valued=_of("I r C E encoding external-encoding internal-encoding enable disable dump backtrace-limit parser"),
    attached=_patterns(F=r".*", K=r".?", T=r"[0-9]*", W=r"[0-9]*|:.*", x=r".*", i=r".*", _0=r"[0-7]*"),
)
_NODE = Grammar(
    inline=_of("e p eval print run test"),
    valued=_of(
        "C conditions env-file env-file-if-exists title icu-data-dir openssl-config redirect-warnings inspect-port"
        " debug-port diagnostic-dir report-dir report-directory report-filename report-signal cpu-prof-dir"
        " cpu-prof-name cpu-prof-interval heap-prof-dir heap-prof-name heap-prof-interval heapsnapshot-signal"
        " heapsnapshot-near-heap-limit input-type max-http-header-size stack-trace-limit trace-event-categories"
        " trace-event-file-pattern trace-require-module tls-cipher-list tls-keylog unhandled-rejections"
        " dns-result-order disable-warning disable-proto test-name-pattern test-skip-pattern test-reporter-destination"
        " test-concurrency test-timeout test-shard watch-path secure-heap secure-heap-min use-largepages v8-pool-size"
        " localstorage-file"
        " network-family-autoselection-attempt-timeout experimental-default-type experimental-sea-config"
        " experimental-config-file"
    ),
    files=_of("r require import loader experimental-loader test-reporter test-global-setup"),
    flags=re.compile(
        r"(no-|abort-|allow-|async-|check|deprecation|enable-|entry-url|experimental-|expose-|force-|frozen-|harmony|help|"
        r"huge-|insecure-|inspect|interactive|jitless|node-|pending-|permission|preserve-|prof|report-|strip-types|"
        r"throw-|trace-|track-|use-|verify-|v8-options|version|warnings|watch|zero-fill)[a-z0-9-]*"
    ),
    skips=_of("inspect debug"),
    within="index.js",
    packages=True,
    modules=True,
    endings=(".js", ".cjs", ".mjs", ".json"),
)
_PHP = Grammar(
    inline=_of("r B R E run process-code process-begin process-end rf rc re rz ri"),
    valued=_of("c d t z S php-ini define docroot zend-extension server"),
    files=_of("F process-file"),
    last=_of("f file"),
)
_LUA = Grammar(valued=_of("e l"))
_TCL = Grammar(valued=_of("encoding"), words=True)
_AWK = Grammar(
    valued=_of("v F assign field-separator i include l load e source"),
    files=_of("f file E exec"),
    positional=False,
    stdin=False,
)
_JAVA = Grammar(
    inline=_of("m module"),
    valued=_of(
        "cp classpath class-path p module-path upgrade-module-path add-modules limit-modules add-reads add-exports"
        " add-opens patch-module source describe-module d enable-native-access"
    ),
    last=_of("jar"),
    colon=_of("javaagent agentpath"),
    words=True,
    only=re.compile(r".*\.java"),
    stdin=False,
)
_LOADER = Grammar(
    valued=_of("library-path preload audit argv0 inhibit-rpath glibc-hwcaps-prepend glibc-hwcaps-mask"), stdin=False
)
_BY_NAME: tuple[tuple[re.Pattern[str], Grammar], ...] = (
    (re.compile(r"(python|pypy)[0-9.]*[a-z]*"), _PYTHON),
    (re.compile(r"(ba|da|a|hu|k|mk|z|ya|pdk|ok|t?c)?sh[0-9.]*(-static)?|busybox (sh|ash|hush)"), _SHELL),
    (re.compile(r"perl[0-9.]*"), _PERL),
    (re.compile(r"(node|nodejs)[0-9.]*"), _NODE),
    (re.compile(r"j?ruby[0-9.]*"), _RUBY),
    (re.compile(r"php(-cli|-cgi)?[0-9.]*"), _PHP),
    (re.compile(r"lua(jit)?[0-9.-]*\S*"), _LUA),
    (re.compile(r"(tclsh|wish)[0-9.]*"), _TCL),
    (re.compile(r"[gmn]?awk|original-awk|busybox awk"), _AWK),
    (re.compile(r"java"), _JAVA),
)
_LOADER_NAME = re.compile(r"ld(-linux|-musl|64)?[a-z0-9_.-]*\.so(\.[0-9]+)*|ld-[0-9.]+\.so")
_LIBRARIES = {"library-path": "LD_LIBRARY_PATH", "preload": "LD_PRELOAD", "audit": "LD_AUDIT"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a command line says. libraries: variable of ld.so(8) that an option of a loader stands for, and its value.

    whole: there are no more arguments than were read, or they do not matter.
    """

    scripts: tuple[Script, ...] = ()
    libraries: tuple[tuple[str, str], ...] = ()
    whole: bool = True


def is_loader(executable: str) -> bool:
    """By its name."""
    return _LOADER_NAME.fullmatch(_base(executable)) is not None


def asks(executable: str) -> bool:
    """Does it matter with which arguments this was executed?"""
    return is_loader(executable) or grammar_of(executable, ["sh"]) is not None


def grammar_of(executable: str, arguments: Sequence[str]) -> Grammar | None:
    """How this executable reads these arguments; None for what is no interpreter that we know."""
    name = _base(executable)
    if name.startswith("busybox"):
        applet = _base(arguments[0]) if arguments else ""
        name = f"busybox {applet.removeprefix('-')}"
    return next((grammar for pattern, grammar in _BY_NAME if pattern.fullmatch(name)), None)


def read(executable: str, arguments: Sequence[str], whole: bool = True) -> Told:
    """arguments: the first of them is the name by which it was called. whole: they are all there are."""
    if is_loader(executable):
        return _by_hand(arguments, whole)
    arguments = _without_applet(executable, arguments)
    grammar = grammar_of(executable, arguments)
    if grammar is None:
        return Told()
    reading = _Reading(grammar)
    scripts = tuple(reading.scripts(arguments[1:]))
    return Told(scripts, whole=whole or reading.decided)


def _by_hand(arguments: Sequence[str], whole: bool) -> Told:
    """A loader: the program, and if that is an interpreter, its script."""
    reading = _Reading(_LOADER)
    (*_, program) = (None, *reading.scripts(arguments[1:]))
    libraries = tuple((_LIBRARIES[name], value) for name, value in reading.values if name in _LIBRARIES)
    if program is None:
        return Told((), libraries, whole=whole)
    its = arguments[1 + reading.at :]
    inner = read(program.name, its, whole) if not is_loader(program.name) else _by_hand(its, whole)
    return Told((program, *inner.scripts), (*libraries, *inner.libraries), inner.whole)


def _without_applet(executable: str, arguments: Sequence[str]) -> Sequence[str]:
    """`busybox sh x` is `sh x`."""
    if _base(executable).startswith("busybox") and arguments and _base(arguments[0]).startswith("busybox"):
        return arguments[1:]
    return arguments


@dataclass(frozen=True, slots=True)
class _Step:
    """taken: how many arguments an option was. file: one to be run. ends: nothing after it is a script.

    doubtful: what follows may be its value.
    """

    taken: int
    file: str | None = None
    ends: bool = False
    doubtful: bool = False


class _Reading:
    """decided: what was read says it all, whatever follows. at: position of the last script. values: of options."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self.decided = False
        self.at = 0
        self.values: list[tuple[str, str]] = []

    def scripts(self, arguments: Sequence[str]) -> Iterator[Script]:
        position, doubtful = 0, False
        while position < len(arguments):
            argument = arguments[position]
            if argument == "--":
                position += 1
                break
            if self._is_option(argument):
                step = self._option(argument, arguments[position + 1 : position + 2])
                if step.file is not None:
                    sure = not self._grammar.modules or step.file.startswith(("/", "."))
                    yield self._script(step.file, position, sure=sure)
                if step.ends:
                    self.decided = True
                    return
                position, doubtful = position + step.taken, step.doubtful
            elif doubtful:
                yield self._script(argument, position, sure=False)
                position, doubtful = position + 1, False
            elif position == 0 and argument in self._grammar.skips:
                position += 1
            else:
                break
        yield from self._first(arguments, position)

    def _first(self, arguments: Sequence[str], position: int) -> Iterator[Script]:
        """What stands where a script does."""
        grammar = self._grammar
        if position >= len(arguments):
            if grammar.stdin:
                yield self._script(STDIN, position, sure=False)
            return
        self.decided, name = True, arguments[position]
        if not grammar.positional or (grammar.only is not None and not grammar.only.fullmatch(name)):
            return
        yield self._script(STDIN if name == "-" else name, position, sure=name != "-")

    def _script(self, name: str, position: int, *, sure: bool) -> Script:
        self.at = position
        grammar = self._grammar
        return Script(name, sure, grammar.within, grammar.packages, grammar.endings, grammar.searched)

    def _is_option(self, argument: str) -> bool:
        return len(argument) > 1 and (argument[0] == "-" or (self._grammar.plus and argument[0] == "+"))

    def _option(self, argument: str, following: Sequence[str]) -> _Step:
        grammar = self._grammar
        value = following[0] if following else None
        if not argument.startswith("--") and not grammar.words:
            return self._cluster(argument[1:], value)
        name = argument.lstrip("-")
        kind, colon, named = name.partition(":")
        if colon and kind in grammar.colon:
            return _Step(1, named.partition("=")[0])
        name, equals, given = name.partition("=")
        if equals:
            return self._step(name, given, 1)
        if grammar.takes(name):
            return self._step(name, value, 2)
        return _Step(1, doubtful=not grammar.flags.fullmatch(name))

    def _cluster(self, letters: str, value: str | None) -> _Step:
        """Single letters: the first that takes a value takes all that follows; a shell's takes the next argument."""
        grammar, position, taken = self._grammar, 0, 1
        while position < len(letters):
            letter, rest = letters[position], letters[position + 1 :]
            position += 1
            if letter in grammar.attached:
                found = grammar.attached[letter].match(rest)
                position += found.end() if found else 0
            elif letter in grammar.reads:
                return _Step(taken, STDIN, ends=True)
            elif grammar.plus and letter in grammar.valued:
                taken += 1
            elif grammar.takes(letter):
                return self._step(letter, rest, 1) if rest else self._step(letter, value, taken + 1)
        return _Step(taken)

    def _step(self, name: str, value: str | None, taken: int) -> _Step:
        grammar = self._grammar
        if name in grammar.inline:
            return _Step(taken, ends=True)
        if value is not None:
            self.values.append((name, value))
        if name in grammar.last:
            return _Step(taken, value, ends=True)
        return _Step(taken, value if name in grammar.files else None)


def _base(path: str) -> str:
    return PurePosixPath(path).name

"""A thread beside the loop, for looks that the workload itself can make hang: its memory, and files that it names.

A process's arguments and environment are read out of its memory, where a page may be one that never comes; a file that
it names may lie on a file system that never answers. So nothing of that is done on the loop. A look that takes too long
is told, and its thread left to itself; another one goes on with what waits.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measurer.clock import monotonic
from measurer.loop import Loop

PATIENCE = 5.0
"""Seconds that one look may take."""
MOST_WAITING, MOST_HUNG = 512, 4
_DUE = "looks aside"


@dataclass(frozen=True, slots=True)
class Look:
    """read: done in the thread. told: on the loop, with what came of it. hung: on the loop, instead of that.

    let_go: when it is over, in whatever way.
    """

    read: Callable[[], Any]
    told: Callable[[Any], None]
    hung: Callable[[], None]
    let_go: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Broken:
    error: Exception


class _Hand:
    """One thread, and what it is given. done: an eventfd, written to after each look.

    under_way: what it looks at, and since when (CLOCK_MONOTONIC seconds).
    """

    def __init__(self, done: int) -> None:
        self._done = done
        self._waiting: deque[Look] = deque()
        self._some = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._dismissed = False
        self.answers: deque[tuple[Look, Any]] = deque()
        self.under_way: tuple[Look, float] | None = None
        threading.Thread(target=self._run, name="aside", daemon=True).start()

    @property
    def idle(self) -> bool:
        return self.under_way is None and not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def give(self, look: Look) -> None:
        self._waiting.append(look)
        self._some.release()

    def dismiss(self) -> tuple[Look | None, list[Look]]:
        """Nothing more comes of it than is among its answers. What it was at, and what it had not begun."""
        with self._lock:
            self._dismissed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._some.release()
            return (self.under_way[0] if self.under_way is not None else None), left

    def _run(self) -> None:
        while True:
            self._some.acquire()
            with self._lock:
                if self._dismissed:
                    return
                look = self._waiting.popleft()
                self.under_way = (look, monotonic())
            try:
                answer = look.read()
            except Exception as error:  # noqa: BLE001 - raised again where it is heard of
                answer = _Broken(error)
            look.let_go()
            with self._lock:
                self.under_way = None
                if self._dismissed:
                    return
                self.answers.append((look, answer))
                os.eventfd_write(self._done, 1)


class Aside:
    """One look after the other, in order. worn_out: called once, where too many have hung to go on."""

    def __init__(self, loop: Loop, worn_out: Callable[[], None], patience: float = PATIENCE) -> None:
        self._loop, self._worn_out, self._patience = loop, worn_out, patience
        self._done = -1
        self._hand: _Hand | None = None
        self._hung = self._asked = self._over = 0
        self._afterwards: deque[tuple[int, Callable[[], None]]] = deque()

    def take(self, look: Look) -> bool:
        """False, and it is let go, where too much waits already, or hangs."""
        if self._hung >= MOST_HUNG or (self._hand is not None and len(self._hand) >= MOST_WAITING):
            look.let_go()
            return False
        if self._done < 0:
            self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._loop.watch(self._done, self._collect)
        if self._hand is None:
            self._hand = _Hand(self._done)
        self._asked += 1
        self._hand.give(look)
        self._loop.after(_DUE, self._patience, self._check)
        return True

    def afterwards(self, act: Callable[[], None]) -> None:
        """Once all is told that was asked for until now; at once where it is."""
        if self._over == self._asked:
            act()
        else:
            self._afterwards.append((self._asked, act))

    def close(self) -> None:
        """No more answers. A look that hangs keeps its thread."""
        self._loop.cancel(_DUE)
        self._afterwards.clear()
        if self._hand is not None:
            _, left = self._hand.dismiss()
            for each in left:
                each.let_go()
            self._hand = None
        if self._done >= 0:
            self._loop.forget(self._done)
            os.close(self._done)
            self._done = -1

    def _collect(self) -> None:
        os.eventfd_read(self._done)
        if self._hand is not None:
            self._tell(self._hand)

    def _tell(self, hand: _Hand) -> None:
        while hand.answers:
            look, answer = hand.answers.popleft()
            if isinstance(answer, _Broken):
                raise answer.error
            look.told(answer)
            self._count()

    def _count(self) -> None:
        self._over += 1
        while self._afterwards and self._afterwards[0][0] <= self._over:
            self._afterwards.popleft()[1]()

    def _check(self) -> None:
        """Has the look under way taken too long?"""
        hand = self._hand
        if hand is None or hand.idle:
            return
        under_way = hand.under_way
        due = (under_way[1] if under_way is not None else monotonic()) + self._patience
        if due > monotonic():
            self._loop.after(_DUE, due - monotonic(), self._check)
        else:
            self._replace(hand)

    def _replace(self, hand: _Hand) -> None:
        self._hand = None
        hangs, left = hand.dismiss()
        self._tell(hand)
        if hangs is not None:
            self._hung += 1
            hangs.hung()
            self._count()
        if self._hung >= MOST_HUNG:
            for each in left:
                each.let_go()
                self._count()
            self._worn_out()
        elif left:
            self._hand = _Hand(self._done)
            for each in left:
                self._hand.give(each)
            self._loop.after(_DUE, self._patience, self._check)

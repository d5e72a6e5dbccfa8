"""The stop flag: installed while entered, counted, and heard at once."""

from __future__ import annotations

import os
import signal
import threading

from pipeline.errors import Interrupted, Stopped
from pipeline.runtime.stop import StopFlag


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopFlag():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_first_signal_decides_the_exit_code_and_the_second_is_urgent() -> None:
    woken = []
    with StopFlag() as stop, stop.waking(lambda: woken.append(1)):
        assert not stop.is_set
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set
        assert not stop.urgent
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.urgent
    assert woken == [1, 1]
    assert isinstance(stop.error("half"), Interrupted)
    assert stop.error("half").exit_code == 130


def test_sigterm_is_code_75() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    error = stop.error("1 of 2 tasks")
    assert (type(error), error.exit_code, error.message) == (Stopped, 75, "stopped by SIGTERM: 1 of 2 tasks")


def test_in_another_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def enter() -> None:
        with StopFlag():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert during == [before]

"""Leases between real processes: killed, stopped, racing, and process numbers used again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from pipeline.errors import InputError
from pipeline.store.journal import Journal
from pipeline.store.lease import Lease
from pipeline.store.process import home, is_running, own_start
from pipeline.store.register import Holder, Register

FAST = {"patience": 20.0, "beat": 0.05}

HOLD = """
import sys
from pipeline.store.lease import Lease
from pipeline.errors import InputError
lease = Lease(sys.argv[1], sys.argv[2], patience=float(sys.argv[3]), beat=0.05)
try:
    lease.acquire()
except InputError as error:
    print("refused", error.message, flush=True)
    sys.exit(error.exit_code)
print("held", flush=True)
for line in sys.stdin:
    print(lease.still_ours() if line.strip() == "ours?" else "what?", flush=True)
lease.release()
"""


class Other:
    """A process that wants the lease; answers on its standard output."""

    def __init__(self, directory, name="run", patience=1.0):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(directory), name, str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self):
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asks(self, line):
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hears()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        self.process.communicate()
        return self.process.returncode


@contextmanager
def other(directory, name="run", patience=1.0):
    process = Other(directory, name, patience)
    try:
        assert process.hears() == "held"
        yield process
    finally:
        process.close()


def holder(name="run", *, at=None, pid=None, start=None, token="t"):
    return Holder(
        name,
        "elsewhere",
        home() if at is None else at,
        os.getpid() if pid is None else pid,
        own_start() if start is None else start,
        token,
        0.0,
    )


def names(directory):
    return sorted(h.name for h in Register(directory / "leases").read().holders)


def test_held_means_refused_and_released_means_free(tmp_path):
    with other(tmp_path) as process, pytest.raises(InputError) as caught, Lease(tmp_path, **FAST):
        pass
    assert caught.value.exit_code == 2
    assert str(process.process.pid) in caught.value.message
    assert "kill" in (caught.value.hint or "")
    with Lease(tmp_path, **FAST) as lease:
        assert lease.still_ours()
        lease.check()
    assert not lease.still_ours()
    with pytest.raises(InputError, match="lost its lease"):
        lease.check()
    assert names(tmp_path) == []


def test_a_refusal_leaves_the_holder_undisturbed(tmp_path):
    with Lease(tmp_path, **FAST) as first:
        for _ in range(3):
            with pytest.raises(InputError, match="in use"):
                Lease(tmp_path, **FAST).acquire()
        assert first.still_ours()
        assert len(list((tmp_path / "leases").glob("*.beat"))) == 1


def test_shards_share_but_not_with_a_run_nor_with_themselves(tmp_path):
    with other(tmp_path, "shard-1-of-2"), Lease(tmp_path, "shard-2-of-2", **FAST) as mine:
        assert names(tmp_path) == ["shard-1-of-2", "shard-2-of-2"]
        for name in ("run", "shard-1-of-2", "shard-2-of-2"):
            with pytest.raises(InputError, match="in use"):
                Lease(tmp_path, name, **FAST).acquire()
        assert mine.still_ours()
    with Lease(tmp_path, **FAST), pytest.raises(InputError, match="'run' is held"):
        Lease(tmp_path, "shard-1-of-2", **FAST).acquire()


def test_a_killed_holder_is_replaced_at_once(tmp_path):
    with other(tmp_path, patience=1000) as process:
        process.process.kill()
        process.process.wait()
        started = time.monotonic()
        with Lease(tmp_path, patience=1000, beat=0.05) as lease:
            assert time.monotonic() - started < 1
            assert lease.still_ours()
    assert names(tmp_path) == []


def test_a_holder_that_is_dead_but_not_reaped_is_replaced_at_once(tmp_path):
    with other(tmp_path, patience=1000) as process:
        process.process.kill()
        # Nobody waits for it, so that its number stays in use.
        while is_running(process.process.pid, own_start_of(process.process.pid)):
            time.sleep(0.01)
        os.kill(process.process.pid, 0)
        with Lease(tmp_path, patience=1000, beat=0.05) as lease:
            assert lease.still_ours()


def own_start_of(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def test_a_holder_whose_number_was_used_again_is_replaced_at_once(tmp_path):
    register = Register(tmp_path / "leases")
    register.beat("t", 3)
    assert register.replace(register.read(), (holder(start=own_start() - 1),), "t")
    started = time.monotonic()
    with Lease(tmp_path, patience=1000, beat=0.05):
        assert time.monotonic() - started < 1
        assert not (tmp_path / "leases" / "t.beat").exists()


@pytest.mark.parametrize("at", ["another boot/pid:[1]", ""])
def test_a_silent_holder_elsewhere_is_given_its_time(tmp_path, at):
    register = Register(tmp_path / "leases")
    register.beat("t", 3)
    # Its process number does not exist here, which must not count: it is another machine's.
    assert register.replace(register.read(), (holder(at=at, pid=2**22 + 1),), "t")
    said = []
    started = time.monotonic()
    with Lease(tmp_path, patience=0.5, beat=0.05, waiting=said.append):
        assert time.monotonic() - started >= 0.5
    assert len(said) == 1 and "elsewhere" in said[0]


def test_a_holder_elsewhere_that_beats_is_respected(tmp_path):
    register = Register(tmp_path / "leases")
    register.beat("t", 0)
    assert register.replace(register.read(), (holder(at="another boot/pid:[1]"),), "t")
    over = threading.Event()

    def live():
        count = 0
        while not over.wait(0.05):
            count += 1
            register.beat("t", count)

    heart = threading.Thread(target=live)
    heart.start()
    try:
        with pytest.raises(InputError, match="elsewhere"):
            Lease(tmp_path, **FAST).acquire()
    finally:
        over.set()
        heart.join()


def test_a_stopped_holder_loses_the_lease_and_finds_out(tmp_path):
    with other(tmp_path) as sleeper:
        sleeper.process.send_signal(signal.SIGSTOP)
        with Lease(tmp_path, patience=0.6, beat=0.05) as mine:
            sleeper.process.send_signal(signal.SIGCONT)
            assert sleeper.asks("ours?") == "False"
            time.sleep(0.2)  # Its heart beats again, in a file of its own.
            assert mine.still_ours()
            with Journal(tmp_path).writer(guard=mine.check) as writer:
                writer.stage("gram", "f", "started")
            assert sleeper.close() == 0  # Its release takes nothing from us either.
            assert mine.still_ours()
            assert names(tmp_path) == ["run"]


def test_a_short_stop_costs_nothing(tmp_path):
    with other(tmp_path, patience=30) as sleeper:
        sleeper.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        sleeper.process.send_signal(signal.SIGCONT)
        with pytest.raises(InputError, match="in use"):
            Lease(tmp_path, patience=30, beat=0.05).acquire()
        assert sleeper.asks("ours?") == "True"


def race(directory, count):
    """How many of ``count`` threads that start together hold the lease at the same time."""
    barrier = threading.Barrier(count)
    held, refused = [], []

    def take():
        lease = Lease(directory, patience=5, beat=0.02)
        barrier.wait()
        try:
            lease.acquire()
            held.append(lease)
        except InputError:
            refused.append(lease)

    threads = [threading.Thread(target=take) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ours = [lease for lease in held if lease.still_ours()]
    assert len(held) + len(refused) == count
    for lease in held:
        lease.release()
    return len(held), len(ours)


def test_of_many_takers_exactly_one_wins(tmp_path):
    for attempt in range(25):
        directory = tmp_path / str(attempt)
        register = Register(directory / "leases")
        if attempt % 2:  # Every other time there is a dead holder to take over from.
            register.beat("t", 3)
            assert register.replace(register.read(), (holder(start=own_start() - 1),), "t")
        assert race(directory, 4) == (1, 1)


@pytest.mark.faults("two runs begin in the same moment", "exactly one wins")
def test_of_two_processes_exactly_one_wins(tmp_path):
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        with other(directory, patience=1000) as dead:
            dead.process.kill()
            dead.process.wait()
        takers = [Other(directory, patience=1000) for _ in range(2)]
        try:
            answers = sorted(taker.hears().split()[0] for taker in takers)
            assert answers == ["held", "refused"]
        finally:
            codes = sorted(taker.close() for taker in takers)
        assert codes == [0, 2]


def test_many_shards_enter_and_leave_at_once(tmp_path):
    barrier = threading.Barrier(8)
    failures = []

    def work(shard):
        try:
            barrier.wait()
            for _ in range(5):
                with Lease(tmp_path, f"shard-{shard}-of-8", **FAST) as lease:
                    if not lease.still_ours():
                        failures.append(shard)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == []
    assert len(list((tmp_path / "leases").iterdir())) <= 3


def test_a_superseded_state_cannot_be_brought_back(tmp_path):
    register = Register(tmp_path / "leases")
    old = register.read()
    for count in range(4):
        state = register.read()
        assert register.replace(state, (holder(token=f"t{count}"),), f"t{count}")
    # Generation 1 was swept away, so a slow taker can create it once more; nobody takes notice.
    assert register.replace(old, (holder(token="slow"),), "slow")
    assert register.read().holds("t3")
    assert not register.read().holds("slow")


def test_a_damaged_register_is_not_guessed_at(tmp_path):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "00000004.json").write_text(json.dumps({"holder": 1}))
    with pytest.raises(InputError, match=r"00000004\.json") as caught:
        Lease(tmp_path, **FAST).acquire()
    assert "remove" in (caught.value.hint or "")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "leases").write_text("a file in the way")
    with pytest.raises(InputError, match="leases"):
        Lease(tmp_path, **FAST).acquire()

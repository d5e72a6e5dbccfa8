"""Three hosts with addresses of their own, sshd on each, and cables that can be cut; root, iproute2, openssh-server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "nth"
SUBNET = "10.89.88"


def missing(infra: Path) -> str:
    """What the hosts need and is not here; empty: nothing."""
    if os.geteuid():
        return "hosts of their own need root"
    if not (infra / "netns-up").exists():
        return f"no netns-up in {infra}"
    programs = {"ip": "iproute2", "ssh": "openssh-client", "sshd": "openssh-server"}
    absent = [
        package
        for name, package in programs.items()
        if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    ]
    return f"apt-get install --no-install-recommends {' '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class Hosts:
    """The hosts 1, 2, 3; the file system is everybody's. `folder`: keys and configuration of ssh."""

    folder: Path

    def name(self, number: int) -> str:
        return f"{PREFIX}{number}"

    def address(self, number: int) -> str:
        return f"{SUBNET}.{number}"

    def on(self, number: int) -> tuple[str, ...]:
        """Words that make a command one of this host."""
        return ("ip", "netns", "exec", self.name(number))

    def cut(self, number: int) -> None:
        subprocess.run(["ip", "link", "set", f"br-{PREFIX}-{number}", "down"], check=True)

    def mend(self, number: int) -> None:
        subprocess.run(["ip", "link", "set", f"br-{PREFIX}-{number}", "up"], check=True)

    def listening(self, number: int) -> list[str]:
        """Local addresses of the TCP sockets that listen there, `ADDRESS:PORT`."""
        lines = subprocess.check_output([*self.on(number), "ss", "-Hltn"], text=True).splitlines()
        return [line.split()[3] for line in lines]


@contextlib.contextmanager
def three_hosts(infra: Path, folder: Path) -> Iterator[Hosts]:
    """Hosts that let root in from each other by ssh."""
    hosts = Hosts(folder)
    subprocess.run([infra / "netns-up", "-p", PREFIX, "-s", SUBNET], check=True, capture_output=True)
    try:
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "ssh_config").write_text(
            f"Host *\nIdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n"
            "StrictHostKeyChecking no\nLogLevel ERROR\nBatchMode yes\nServerAliveInterval 15\nServerAliveCountMax 4\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        for number in (1, 2, 3):
            config = folder / f"sshd_config_{number}"
            config.write_text(
                f"ListenAddress {hosts.address(number)}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
                f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin prohibit-password\n"
            )
            subprocess.run(
                [*hosts.on(number), shutil.which("sshd") or "/usr/sbin/sshd", "-f", config], check=True
            )
        time.sleep(0.5)
        yield hosts
    finally:
        subprocess.run([infra / "netns-down", "-p", PREFIX], check=False, capture_output=True)

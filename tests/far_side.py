"""A real sshd on the loopback interface, and behind it a bare device: a home of its own, and none of the checkout.

The login is this user's own, with a forced command in place of a shell; where the tests run as root it becomes
`nobody`, for edgetok installs nothing as root. What the device has installed is what the tests' Python has, by a .pth
file in its home: so nothing is fetched.
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest

NOBODY = 65534
SSH = shutil.which("ssh")  # before a test puts its own in front of it
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


class FarSide:
    """A device, by the name `device` in an ssh_config of its own.

    Attributes:
        home: the home of the user there.
        shell: what a session's command is run by; tests put limits and other programs into it.
    """

    def __init__(self, folder: Path, packages: bool = True, disk: str | None = None):
        """Start it.

        Args:
            folder: a new one, which everybody can enter.
            packages: the device has what the tests' Python has; without them it has Python alone.
            disk: the home is a file system of its own, mounted with these options of tmpfs.
        """
        self.folder = folder
        self.home, self.bin, self.near = folder / "home", folder / "bin", folder / "near"
        for made in (self.home, self.bin, self.near):
            made.mkdir()
        self.mounted = disk is not None
        if disk is not None:
            self._run("mount", "-t", "tmpfs", "-o", disk, "none", str(self.home))
        (self.bin / "python3").symlink_to(Path(sys._base_executable).resolve())
        self.see_packages() if packages else self.own()
        self.shell = folder / "shell"
        self.compiler = "none"  # building the C++ operators takes half a minute
        self.set_shell()
        for name in ("host", "user", "other"):
            self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nAuthorizedKeysFile {folder}/authorized\nPermitRootLogin yes\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nForceCommand {self.shell}\n"
        )
        self.know(folder / "host.pub")
        self.log = (folder / "sshd.log").open("w")
        self.sshd = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=self.log)
        self._wait()

    def see_packages(self) -> None:
        """Give the device the packages of the tests' Python, in the user's site-packages."""
        place = self.home / f".local/lib/python{sysconfig.get_python_version()}/site-packages"
        place.mkdir(parents=True)
        (place / "device.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
        self.own()

    def own(self) -> None:
        """Give what the tests put into the home to the user there."""
        for path in (self.home, *self.home.rglob("*")):
            if os.geteuid() == 0:
                os.lchown(path, NOBODY, NOBODY)

    def set_shell(self, before: str = "", path: str | None = None) -> None:
        """What every session runs.

        Args:
            before: shell commands, such as limits.
            path: its PATH.
        """
        drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups" if os.geteuid() == 0 else ""
        path = f"{self.bin}:/usr/bin:/bin" if path is None else path
        new = self.shell.with_suffix(".new")
        new.write_text(
            f'#!/bin/sh\ncd {self.home}\n{before}\n'
            f"exec /usr/bin/env -i HOME={self.home} PATH={path} CXX={self.compiler} {drop} "
            '/bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        new.chmod(0o755)
        new.replace(self.shell)  # another sshd may be reading it

    def know(self, public_key: Path | None, user: str = "user") -> None:
        """What this side's ssh knows: the host's key, or none; and whose key it shows."""
        known = "" if public_key is None else f"[127.0.0.1]:{self.port} {public_key.read_text()}"
        (self.folder / "known_hosts").write_text(known)
        (self.folder / "ssh_config").write_text(
            f"Host device\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {self.folder}/{user}\n"
            f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {self.folder}/known_hosts\n"
            "  GlobalKnownHostsFile /dev/null\n  LocalForward 127.0.0.1:1 127.0.0.1:1\n"
        )
        (self.near / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {self.folder}/ssh_config "$@"\n')
        (self.near / "ssh").chmod(0o755)

    def connections(self) -> int:
        """How many times somebody was let in."""
        return (self.folder / "sshd.log").read_text().count("Accepted publickey")

    def environments(self) -> set[Path]:
        """What is installed there, whole."""
        return {ready.parent for ready in self.home.glob(".local/share/edgetok/envs/*/ready")}

    def processes(self) -> list[str]:
        """Command lines of what runs there out of the home."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.home) in line:
                found.append(line)
        return found

    def close(self) -> None:
        """Stop sshd and remove the device."""
        self.sshd.terminate()
        self.sshd.wait(10)
        self.log.close()
        if self.mounted:
            self._run("umount", str(self.home))
        shutil.rmtree(self.folder)

    def _wait(self) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and self.sshd.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'sshd.log').read_text()}")

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


def far_side(packages: bool = True, disk: str | None = None) -> FarSide:
    """Start one, or skip the test with the reason."""
    if SSHD is None or SSH is None:
        pytest.skip("no sshd: apt install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it when it is root's
    folder = Path(tempfile.mkdtemp(prefix="edgetok-far-"))
    folder.chmod(0o755)
    try:
        device = FarSide(folder, packages, disk)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder)
        pytest.skip(f"{error.cmd[0]} is not allowed here: {error.stderr.decode().strip()}")
    probe = {"SSH_ORIGINAL_COMMAND": f"python3 -c 'import {'numpy' if packages else 'venv'}'"}
    if subprocess.run([device.shell], env=probe, capture_output=True, check=False).returncode:
        device.close()
        pytest.skip("the tests run as root, and a user who is not cannot use their Python")
    return device

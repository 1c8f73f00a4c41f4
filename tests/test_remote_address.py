"""Addresses of devices, and their names: what ssh is told, and what never reaches it."""

from pathlib import Path

import pytest

from edgetok.errors import UsageError
from edgetok.remote.address import Address
from edgetok.remote.named import Target, find

PROFILES = ("auto", "cpu", "jetson-orin-nano-jp62")


@pytest.mark.parametrize(
    ("text", "address", "arguments"),
    [
        ("ssh://nano", Address("nano"), ["--", "nano"]),
        ("ssh://me@nano.local", Address("nano.local", "me"), ["-l", "me", "--", "nano.local"]),
        ("ssh://me@10.0.0.7:2222", Address("10.0.0.7", "me", 2222), ["-l", "me", "-p", "2222", "--", "10.0.0.7"]),
        ("ssh://nano/cpu", Address("nano", device="cpu"), ["--", "nano"]),
        ("ssh://nano/", Address("nano"), ["--", "nano"]),
        ("ssh://[fe80::1%eth0]:22/x-1", Address("fe80::1%eth0", None, 22, "x-1"), ["-p", "22", "--", "fe80::1%eth0"]),
    ],
)
def test_address(text: str, address: Address, arguments: list[str]) -> None:
    assert Address.parse(text) == address
    assert address.arguments == arguments


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ssh://", "'' is no host"),
        ("ssh://-oProxyCommand=touch", "'-oProxyCommand=touch' is no host"),
        ("ssh://-l@nano", "'-l' is no user"),
        ("ssh://me@na no", "'na no' is no host"),
        ("ssh://me@nano;reboot", "'nano;reboot' is no host"),
        ("ssh://$(id)@nano", "'$(id)' is no user"),
        ("ssh://@nano", "'' is no user"),
        ("ssh://a@b@nano", "'b@nano' is no host"),
        ("ssh://nano:0", "'0' is no port"),
        ("ssh://nano:65536", "'65536' is no port"),
        ("ssh://nano:٢٢", "is no port"),
        ("ssh://nano:", "'' is no port"),
        ("ssh://nano/cpu/x", "'cpu/x' is no device"),
        ("ssh://nano/--force", "'--force' is no device"),
        ("ssh://::1", "'' is no host"),
        ("http://nano", "write ssh://[user@]host[:port][/device]"),
        ("ssh://[nano]", "'[nano]' is no host"),
        ("ssh://nano\n", "is no host"),
    ],
)
def test_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        Address.parse(text)
    assert told in str(refused.value)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's devices.toml, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "edgetok").mkdir()
    return tmp_path / "edgetok" / "devices.toml"


def test_names(devices: Path) -> None:
    assert find("nano", PROFILES) is None, "there is no file"
    devices.write_text('[nano]\naddress = "ssh://me@nano"\ndevice = "cpu"\nwheels = "/w"\n[b]\naddress = "ssh://b/auto"')
    assert find("nano", PROFILES) == Target("nano", Address("nano", "me", device="cpu"), Path("/w"))
    assert find("nano", PROFILES, Path("/other")) == Target("nano", Address("nano", "me", device="cpu"), Path("/other"))
    assert find("b", PROFILES) == Target("b", Address("b"))
    assert find("ssh://c", PROFILES, Path("/w")) == Target("ssh://c", Address("c"), Path("/w"))
    assert find("cpu", PROFILES) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nano = 1", "[nano]: its value: "),
        ("[nano]", "[nano]: address: Field required; it holds address, device and wheels"),
        ('[nano]\naddress = "ssh://n"\nkey = "k"', "[nano]: key: Extra inputs are not permitted"),
        ('[nano]\naddress = "nano"', "[nano]: address 'nano': write ssh://"),
        ('[nano]\naddress = "ssh://n/cpu"\ndevice = "cpu"', "the device is named once"),
        ('[cpu]\naddress = "ssh://n"', "[cpu] is the name of a profile"),
        ("[", "cannot be read"),
    ],
)
def test_a_wrong_file_is_told(devices: Path, text: str, told: str) -> None:
    devices.write_text(text)
    with pytest.raises(UsageError) as refused:
        find("nano", PROFILES)
    assert str(devices) in str(refused.value) and told in str(refused.value)

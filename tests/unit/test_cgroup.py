"""Which units a process is in, by what real machines say in /proc/PID/cgroup."""

import pytest

from logengine.intake.cgroup import Units, units_of_cgroup

HEX = "4f66ad9a3d1fdbf0ce8f9b7b02a3a0ab2bba3f26a1c38d7a1f7b1d2cbf2f9a53"
POD = "pod2f1c9b0a_6f0e_4b6e_9a43_0c6a4e1ad2b7"
SYSTEM = {
    "0::/init.scope": "init.scope",
    "0::/system.slice/ssh.service": "ssh.service",
    "0::/system.slice/system-getty.slice/getty@tty1.service": "getty@tty1.service",
    r"0::/system.slice/system-systemd\x2dfsck.slice"
    r"/systemd-fsck@dev-disk-by\x2duuid-CAFE\x2d0001.service": (
        r"systemd-fsck@dev-disk-by\x2duuid-CAFE\x2d0001.service"
    ),
    "0::/system.slice/dbus.socket": "dbus.socket",
    "0::/system.slice/dev-hugepages.mount": "dev-hugepages.mount",
    "0::/system.slice/run-r3f8c.scope": "run-r3f8c.scope",
    "0::/system.slice/run-u17.service (deleted)": "run-u17.service",
    "0::/system.slice/_memory.service": "memory.service",  # the manager's escape of a file's name
    "0::/alone.service": "alone.service",  # Slice=-.slice
    "0::/web.slice/web-front.slice/web-front-eu.slice/nginx.service": "nginx.service",
    "0::/machine.slice/machine-deb.scope": "machine-deb.scope",
}
CONTAINERS = {
    f"0::/system.slice/docker-{HEX}.scope": f"docker-{HEX}.scope",
    f"0::/system.slice/docker-{HEX}.scope/system.slice/sshd.service": f"docker-{HEX}.scope",
    f"0::/machine.slice/libpod-{HEX}.scope/container": f"libpod-{HEX}.scope",
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice"
    f"/cri-containerd-{HEX}.scope": f"cri-containerd-{HEX}.scope",
    "0::/machine.slice/systemd-nspawn@deb.service/payload/system.slice/cron.service": (
        "systemd-nspawn@deb.service"
    ),
    f"0::/docker/{HEX}": None,
    f"0::/docker/{HEX}/system.slice/sshd.service": None,
    f"0::/kubepods/besteffort/pod2f1c9b0a-6f0e-4b6e-9a43-0c6a4e1ad2b7/{HEX}": None,
    "0::/lxc.payload.web/system.slice/sshd.service": None,
    "0::/../sshd.service": None,  # outside the cgroup namespace of the daemon
    "0::/../../system.slice/sshd.service": None,
    "0::/": None,
}
MANAGER = "user.slice/user-1000.slice/user@1000.service"
OF_USERS = {
    f"{MANAGER}/init.scope": "init.scope",
    f"{MANAGER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-0a1b.scope": (
        "vte-spawn-0a1b.scope"
    ),
    rf"{MANAGER}/app.slice/app-gnome\x2dsession\x2dmanager.slice/gnome-session@x.service": (
        "gnome-session@x.service"
    ),
    f"{MANAGER}/session.slice/dbus.service": "dbus.service",
    f"{MANAGER}/user.slice/libpod-{HEX}.scope/container": f"libpod-{HEX}.scope",
    f"{MANAGER}/own.service/sshd.service": "own.service",
    f"{MANAGER}/sshd.service": "sshd.service",
    f"{MANAGER}/own/sshd.service": None,
    f"{MANAGER}": None,
    "user.slice/user-1000.slice/session-3.scope": None,
    "user.slice/user-1000.slice/session-3.scope/sshd.service": None,
    "user.slice/user-1000.slice/user@1001.service/sshd.service": None,
    "user.slice/user-1000.slice/sshd.service": None,
    "user.slice/sshd.service": None,
    "user.slice": None,
}
SPOOFED = [
    "0::/user.slice-more/user-1000.slice/user@1000.service/sshd.service",
    "0::/some.slice/user-1000.slice/user@1000.service/sshd.service",
    "0::/system.slice/web-front.slice/sshd.service",  # not where the manager puts that slice
    "0::/own/sshd.service",
    "0::/system.slice//sshd.service",
    "0::/system.slice/ssh d.service",
    "0::/system.slice/ssh\x1b[31md.service",
    "0::/system.slice/.service",
    "0::/system.slice/sshd.service2",
    f"0::/system.slice/{'s' * 250}.service",
    "0::system.slice/sshd.service",
    "3:cpu:/system.slice/sshd.service",
    "3:name=own:/system.slice/sshd.service",
    "0::/own\n:/system.slice/sshd.service",
]


def units(text: str) -> Units:
    return units_of_cgroup(text.encode() + b"\n")


@pytest.mark.parametrize(("text", "unit"), [*SYSTEM.items(), *CONTAINERS.items()])
def test_the_unit_is_the_one_directly_in_its_slice(text: str, unit: str | None) -> None:
    assert units(text) == (unit, None)


@pytest.mark.parametrize(("path", "unit"), OF_USERS.items())
def test_a_unit_of_a_user_is_never_one_of_the_system(path: str, unit: str | None) -> None:
    assert units(f"0::/{path}") == (None, unit)
    assert units(f"1:name=systemd:/{path}") == (None, unit)


@pytest.mark.parametrize("text", SPOOFED)
def test_what_the_manager_did_not_lay_out_is_no_unit(text: str) -> None:
    assert units(text) == (None, None)


def test_cgroups_v1_name_the_unit_in_the_hierarchy_of_systemd() -> None:
    text = (
        "12:pids:/system.slice/other.service\n11:cpu,cpuacct:/system.slice/other.service\n"
        "1:name=systemd:/system.slice/cron.service"
    )
    assert units(text) == ("cron.service", None)
    assert units(f"1:name=systemd:/docker/{HEX}\n0::/") == (None, None)
    assert units("1:name=systemd:/system.slice/a:b.service") == ("a:b.service", None)


def test_both_hierarchies_of_a_hybrid_agree_or_prove_nothing() -> None:
    cron = "/system.slice/cron.service"
    assert units(f"4:memory:{cron}\n1:name=systemd:{cron}\n0::{cron}") == ("cron.service", None)
    assert units(f"1:name=systemd:{cron}\n0::/") == ("cron.service", None)
    assert units(f"1:name=systemd:/\n0::{cron}") == ("cron.service", None)
    # Docker moves its containers in the hierarchies of v1 only.
    docker = "/system.slice/docker.service"
    assert units(f"1:name=systemd:/docker/{HEX}\n0::{docker}") == (None, None)


def test_no_cgroup_is_no_unit() -> None:
    assert units_of_cgroup(b"") == (None, None)
    assert units_of_cgroup(b"\xff:\xff:/\xff\n0::/\xff.slice/x.service\n") == (None, None)

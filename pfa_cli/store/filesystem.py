"""SQLite's locks and its write-ahead log are not safe on network file systems: who uses one should know."""

from pathlib import Path

_NETWORK = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "drvfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
}
_NETWORK |= {"webdav", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs"}


def network_warning(path: Path) -> str | None:
    """What to tell the user if ``path`` lies on a network file system; None if it does not."""
    kind = file_system(path)
    if kind not in _NETWORK:
        return None
    return (
        f"the database {path} lies on a network file system ({kind}), where SQLite can lose results when "
        "several machines write. Name one on a local disk of each machine by `--db`, and bring them "
        "together by `pfa merge`."
    )


def file_system(path: Path) -> str | None:
    """The type of the file system that ``path`` lies on (or will lie on), such as "ext4"; None if unknown."""
    import psutil

    here = path.absolute().resolve()
    mounts = [
        (len(Path(mount.mountpoint).parts), mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if here.is_relative_to(mount.mountpoint)
    ]
    return max(mounts, key=lambda mount: mount[0])[1].lower() if mounts else None

"""File systems of a test's own."""

from __future__ import annotations

#: Runs what follows the size and the folder with a file system of that size mounted there, for it alone; needs no root.
IN_A_NAMESPACE = (
    *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
    'size=$1 folder=$2; shift 2; mount -t tmpfs -o "size=$size" tmpfs "$folder" && exec "$@"',
    "sh",
)

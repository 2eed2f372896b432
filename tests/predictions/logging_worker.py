"""A process that logs as a gateway worker does, until it is killed; prints each acknowledged prediction id."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from relevo.predictions import frames
from relevo.predictions.ids import Issuer, load_key, new_boot
from relevo.predictions.segments import SegmentWriter

LAYOUT = frames.layout([("distance", "float")])


def record_of(ids: list[str]) -> frames.Record:
    """An answered request with a row for each id."""
    return frames.Record(
        endpoint="e",
        version=1,
        logged_at_us=0,
        asked_at_us=[0] * len(ids),
        ids=ids,
        layout=LAYOUT,
        inputs=[[1.0]] * len(ids),
        keys=[],
        predictions=[0.1] * len(ids),
    )


async def main(home: Path, requests: int) -> None:
    (home / "keys").mkdir(parents=True, exist_ok=True)
    boot = new_boot()
    issuer = Issuer(load_key(home / "keys"), 1, boot)
    writer = SegmentWriter(home / "log", "0", boot, durable=True)

    async def client() -> None:
        nonlocal requests
        while requests != 0:
            requests -= 1
            ids = issuer.issue(0, 2)
            writer.append(frames.encode(record_of(ids)))
            await writer.durable()
            sys.stdout.write("".join(f"{one}\n" for one in ids))
            sys.stdout.flush()

    await asyncio.gather(*(client() for _ in range(16)))
    await writer.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

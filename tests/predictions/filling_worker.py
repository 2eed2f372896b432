"""A process that logs until its disk has been full, and was free again; it leaves a copy of the log.

Prints how many requests were refused, and then each acknowledged prediction id.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from logging_worker import record_of

from relevo.errors import Unavailable
from relevo.predictions.frames import encode
from relevo.predictions.ids import Issuer, new_boot
from relevo.predictions.segments import SegmentWriter


async def main(log: Path, copy: Path) -> None:
    boot = new_boot()
    issuer = Issuer(b"k" * 32, 1, boot)
    writer = SegmentWriter(log, "0", boot, durable=True)
    acknowledged: list[str] = []
    refused = 0
    filler = log / "filler"
    filler.write_bytes(bytes(300_000))
    for _ in range(20_000):
        ids = issuer.issue(0, 1)
        try:
            writer.append(encode(record_of(ids)))
            await writer.durable()
            acknowledged += ids
        except Unavailable:
            refused += 1
            if refused == 20:
                filler.unlink()
        if not filler.exists() and len(acknowledged) >= 4_000:
            break
    await writer.close()
    shutil.copytree(log, copy)
    print(refused, *acknowledged, sep="\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

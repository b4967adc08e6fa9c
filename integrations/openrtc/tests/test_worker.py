from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process

from tests.conftest import SECRET, FakeRollbackd, Signer, until


async def start(rollbackd: FakeRollbackd, signer: Signer) -> Process:
    # There is no LiveKit at that address; its worker tries on, and serves nobody.
    livekit = {
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "a secret of thirty-two characters",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.served_by_livekit"),
        *(rollbackd.url, SECRET, signer.public_key),
        env={**os.environ, **livekit},
        stderr=PIPE,
    )


async def a_pool_under_livekits_own_command_line_leaves_with_75_when_told_to_drain(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(serial=1)
    process = await start(rollbackd, signer)
    try:
        await until(lambda: any("wait" in query for query in rollbackd.queries), seconds=30)
        rollbackd.answer = signer.manifest(serial=2, denied=["v2"], draining=["v2"])
        await until(lambda: rollbackd.beats[-1]["draining"], seconds=30)
        said_goodbye = time.monotonic()
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 75, stderr.decode()
        assert time.monotonic() - said_goodbye > 0.9, "gone before the last scrape"
        assert rollbackd.beats[-1]["draining"]
    finally:
        if process.returncode is None:
            process.kill()


async def a_pool_denied_from_the_beginning_does_not_start(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"], last_good="v1")
    process = await start(rollbackd, signer)
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 78
    assert "version 'v2' is denied in fleet 'voice'" in stderr.decode()
    assert len(rollbackd.beats) == 1

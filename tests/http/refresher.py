"""A process that makes one authorised request, and kills itself at a failpoint if told to.

Arguments: API's URL, state directory, failpoint or "-". Exit 0: answered, 1: no token.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from reqon.clock import SYSTEM
from reqon.errors import AuthenticationError
from reqon.files import arm
from reqon.http.auth import credentials_for
from reqon.http.connections import Connections
from reqon.http.messages import Request, SourceSettings


async def main(url: str, state: Path, point: str) -> int:
    if point != "-":
        arm(point, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    settings = SourceSettings(name="Ledger", base=url)
    record = {
        "type": "oauth2", "clientId": "us", "refreshToken": "refresh-0", "tokenUrl": f"{url}/token",
    }  # fmt: skip
    credentials = credentials_for(settings, {"Ledger": record}, {})
    connections = Connections(clock=SYSTEM, environment={}, state_directory=state, random=lambda: 0.5)
    client = connections.client(settings, credentials, lambda event: print(event), lambda *_: True)  # noqa: PLW0108
    try:
        await client.send(Request(method="GET", target="/entries", template="/entries"))
    except AuthenticationError as error:
        print(error.oauth_error)
        return 1
    finally:
        await connections.close()
    return 0


sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))

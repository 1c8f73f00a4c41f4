"""One request, read from standard input, and its answer."""

import errno
import json
import os
import platform
import sys

from edgetok.remote.agent.blobs import have, put
from edgetok.remote.agent.environment import install
from edgetok.remote.agent.places import ENVS, FULL, free
from edgetok.remote.agent.protocol import Failure, Request, say
from edgetok.remote.agent.runs import collect, follow, remove, start


def probe(request: Request) -> Request:
    """What the machine is, and which environments there are."""
    made = sorted(path.parent.name for path in ENVS.glob("*/ready"))
    told = {"uid": os.geteuid(), "machine": platform.machine(), "python": platform.python_version()}
    return {**told, "environments": made}


def main() -> None:
    """Do what the request asks for."""
    known = (probe, have, put, install, start, follow, collect, remove)
    request = json.loads(sys.stdin.buffer.readline())
    try:
        (do,) = (each for each in known if each.__name__ == request["do"])
        say(done=do(request))
    except Failure as failure:
        say(error=str(failure), kind=failure.kind)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        say(error=FULL if full else str(error), kind="full" if full else "system", free=free())

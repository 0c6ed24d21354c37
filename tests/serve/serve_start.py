"""Starts a server with the settings in its first argument, as `serve.command` does."""

import asyncio
import json
import logging
import sys
from pathlib import Path

from animatediff_turbo.serve import command
from animatediff_turbo.serve.settings import Limits, Settings

PATHS = ("folder", "certificate", "private_key", "keys")


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = json.loads(sys.argv[1])
    given |= {name: Path(given[name]) for name in PATHS if given.get(name)}
    given |= {name: tuple(given[name]) for name in ("devices", "worker") if name in given}
    try:
        asyncio.run(command.serve(Settings(**given | {"limits": Limits(**given.get("limits", {}))})))
    except command.ERRORS as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Processes of our own: what they need to find this package, wherever they are started."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOURCE: Final = str(Path(__file__).resolve().parents[1])


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, with which Python imports this very source first."""
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, environment.get("PYTHONPATH"))))}

"""What stops a command with one line on standard error and no traceback.

* ParallaxError (exit code 1)
  x SetupError (exit code 2): a setting, a file or a topic is wrong; the line says what to do.
  x ServerAbsent (exit code 3): Kafka or Redis does not answer or turns us away.
"""

from typing import ClassVar


class ParallaxError(Exception):
    """Root of the errors that a person can act on. ``str(error)`` is one line and carries no secret."""

    exit_code: ClassVar[int] = 1

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))


class SetupError(ParallaxError):
    """A setting, an input file or the topic plan is wrong."""

    exit_code: ClassVar[int] = 2


class ServerAbsent(ParallaxError):
    """A server cannot be reached, or refuses the connection."""

    exit_code: ClassVar[int] = 3

"""How decoders stop at a row that cannot be used, and how its value is shown to a person."""

from typing import Final

from schemas.event import RejectCode, Rejection

SHOWN_CHARS: Final = 60


class Refused(ValueError):
    """A row is unusable. It carries the rejection, and never leaves ``decode_record``."""

    def __init__(self, code: RejectCode, sentence: str) -> None:
        super().__init__(sentence)
        self.rejection = Rejection(code, sentence)


def show(value: object) -> str:
    """A value as a sentence may repeat it: scalars cut to ``SHOWN_CHARS``, containers only by their kind."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            text = ascii(value[:SHOWN_CHARS])
        case _:
            text = str(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"

"""Looks at a model in a process of its own before it is loaded here.

The checksum tells damage on the way. Trees that were broken before they were sealed can end the process that loads
them: one changed byte in six does.
"""

import os
import subprocess
import sys
from typing import Final

import msgspec

from core.learning.ctr_model import CtrModel
from schemas.model import ModelRefused, RefusalCode, decode
from stream_app.child import importable

REFUSED: Final = 10
LONGEST_S: Final = 60.0


class _Told(msgspec.Struct):
    code: RefusalCode
    reason: str


def checked(payload: bytes | None, profile: str) -> CtrModel:
    """The model of its bytes, for features that stand on this profile. Takes a second or two.

    Raises ``ModelRefused``.
    """
    sealed = decode(payload)
    if payload is None or not sealed.trees:
        raise ModelRefused(RefusalCode.NOT_TREES, "the model has no trees")
    command = [sys.executable, "-m", "stream_app.model_check", profile]
    try:
        looked = subprocess.run(  # noqa: S603 our own module
            command, input=payload, capture_output=True, timeout=LONGEST_S, env=importable(os.environ), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelRefused(RefusalCode.NOT_TREES, f"the model could not be looked at: {error}") from None
    if looked.returncode == 0:
        return CtrModel.from_bytes(payload, profile)
    try:
        told = msgspec.json.decode(looked.stdout, type=_Told)
    except msgspec.DecodeError:
        said = f"the model's trees ended the process that loaded them ({looked.returncode})"
        raise ModelRefused(RefusalCode.NOT_TREES, said) from None
    raise ModelRefused(told.code, told.reason)


def main() -> int:
    """Looks at the model on standard input, for the profile that is named; says on standard output why it is none."""
    try:
        CtrModel.from_bytes(sys.stdin.buffer.read(), sys.argv[1])
    except ModelRefused as refused:
        sys.stdout.buffer.write(msgspec.json.encode(_Told(refused.code, refused.reason)))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())

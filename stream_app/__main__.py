"""``python -m stream_app`` is ``parallax``."""

from stream_app.cli import main

main()

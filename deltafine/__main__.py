"""`python -m deltafine` is `deltafine`."""

from deltafine.cli import main

main()

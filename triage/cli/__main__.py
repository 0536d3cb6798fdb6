"""`python -m triage.cli`."""

from . import main

main()

"""`python -m unetzoo.cli`."""

from . import main

main()

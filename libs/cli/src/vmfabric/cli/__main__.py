"""`python -m vmfabric.cli`."""

from vmfabric.cli.main import main

main()

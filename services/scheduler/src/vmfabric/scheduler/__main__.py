"""`python -m vmfabric.scheduler`"""

from vmfabric.scheduler.main import main

main()

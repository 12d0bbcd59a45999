"""`python -m vmfabric.bgp_announcer`"""

from vmfabric.bgp_announcer.main import main

main()

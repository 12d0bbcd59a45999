"""`python -m vmfabric.node_agent`."""

from vmfabric.node_agent.main import main

if __name__ == "__main__":
    main()

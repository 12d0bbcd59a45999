"""`python -m vmfabric.ipam`."""

from vmfabric.ipam.main import main

if __name__ == "__main__":
    main()

"""The rules of addresses. Nothing here reads or writes anything."""

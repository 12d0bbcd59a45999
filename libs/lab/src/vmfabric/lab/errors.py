"""What the lab says when it cannot go on."""


class LabError(Exception):
    """What was wanted, what was found, what to do."""

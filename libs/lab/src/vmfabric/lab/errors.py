"""What the lab says when it cannot go on."""


class LabError(Exception):
    """What was wanted, what was found, what to do."""


class LabIsUpError(LabError):
    """A lab is to be made where one is up already; it is untouched."""


class ServerFailedError(LabError):
    """A server did not start; the text has the end of its log."""

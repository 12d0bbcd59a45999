"""What text from outside must look like, for programs and in words."""

SHORT_NAME = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
INTERFACE = r"^[a-z0-9][a-z0-9_-]{0,14}$"
MAC = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"
COMMUNITY = r"^(0|[1-9][0-9]{0,9})(:(0|[1-9][0-9]{0,9})){1,2}$"
PASSWORD = r"^[!-~]{1,80}$"  # noqa: S105  # what a password looks like, not one
LINE = r"^[^\x00-\x1f\x7f]*$"
NODE_LABEL = r"^[a-z0-9./-]{1,63}$"

IN_WORDS = {
    SHORT_NAME: "must be 1 to 32 characters of a-z, 0-9 and -, with no - at either end",
    LABEL: "must be 1 to 63 characters of a-z, 0-9 and -, with no - at either end",
    NODE_LABEL: "must be 1 to 63 characters of a-z, 0-9, -, . and /",
    INTERFACE: "must be 1 to 15 characters of a-z, 0-9, _ and -, and begin with a letter or a digit",
    MAC: "must be six octets in lower case with colons, as in 02:00:00:00:00:01",
    COMMUNITY: "must be a community such as 65000:100, or a large one such as 65000:1:100",
    LINE: "must be one line of text, without control characters",
    PASSWORD: "must be 1 to 80 printable characters of ASCII without a space",
}

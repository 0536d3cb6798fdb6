"""Errors of scanlane: each message says what failed, where, the value seen and what to do."""


class ScannerError(Exception):
    """Base of every error that scanlane raises on purpose."""


class ConfigError(ScannerError):
    """A configuration cannot be used.

    problems : every problem found, each naming file, key path, value seen and value expected.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class LinkLost(ScannerError):  # noqa: N818 -- the field's word for it
    """A device or peer cannot be reached any more; the caller may reconnect."""


class ProtocolError(ScannerError):
    """A peer sent what its protocol does not allow."""


class DataError(ScannerError):
    """A file, image or record is not what it must be."""


class TruncatedError(DataError):
    """The end of the file is missing: it is still being written, or was cut."""


class StorageError(ScannerError):
    """Something could not be written down durably."""


class DeliveryError(ScannerError):
    """A result or a decision could not be delivered or was refused."""


class NoAnswer(DeliveryError):  # noqa: N818 -- what happened
    """The service did not answer in time: whether it took what it was sent is not known."""

"""What goes wrong with data sets."""


class DataError(Exception):
    """A data set that cannot be used; the message says what is expected where."""

"""What the command prints."""


def lines_of(result):
    """The lines on stderr, each of which must be the command's own."""
    lines = result.err.splitlines()
    assert not [line[:200] for line in lines if not line.startswith("qaudio: ")][:3]
    return lines

"""What loaders give."""


def ids(loader) -> list[str]:
    """Ids of all clips, in the loader's order."""
    return [name for batch in loader for name in batch["id"]]

"""One runtime per file."""

if __name__ != "edgetok.runtimes":
    raise ImportError(f"import edgetok.runtimes, not {__name__}: it would be a second copy")

"""One technique per file; what can be exported lies in sources/."""

if __name__ != "edgetok.exporters":
    raise ImportError(f"import edgetok.exporters, not {__name__}: it would be a second copy")

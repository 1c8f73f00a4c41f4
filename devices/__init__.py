"""One device per TOML file."""

if __name__ != "edgetok.devices":
    raise ImportError(f"import edgetok.devices, not {__name__}: it would be a second copy")

"""One operator of the ONNX domain `edgetok` per file."""

if __name__ != "edgetok.plugins":
    raise ImportError(f"import edgetok.plugins, not {__name__}: it would be a second copy")

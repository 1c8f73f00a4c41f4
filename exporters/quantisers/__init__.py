"""One quantiser per file: what makes the weights of few bits that `--quantize` asks for."""

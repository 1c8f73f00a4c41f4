"""One way of cutting bytes into a vocabulary's tokens per file."""

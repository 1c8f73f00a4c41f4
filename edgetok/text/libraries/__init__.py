"""One library that reads vocabularies per file."""

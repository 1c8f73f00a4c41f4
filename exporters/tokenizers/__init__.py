"""Tokenizers of signals: one family per file, each with what encodes and what decodes as modules that export."""

"""Text to tokens by a vocabulary of bytes, cut by its own rule or by others."""

"""One quantiser head per file: vectors to ids of codes, and back."""

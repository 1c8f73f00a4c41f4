"""A profile as one HTML file: the page, and the figures on it."""

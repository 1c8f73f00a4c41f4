"""Weights of few bits: their one form, how they are packed, and how a graph gets them."""

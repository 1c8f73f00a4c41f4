"""Rewriting of graphs into edgetok's spelling: one file for each thing that is recognised."""

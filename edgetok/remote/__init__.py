"""Devices reached over SSH: their addresses, the connection, what is installed there, and what runs there."""

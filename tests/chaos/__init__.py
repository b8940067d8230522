"""Fault storms over the whole local system, crash points, and a checker that trusts nothing: `make chaos`."""

"""The vocabulary that every room shares: frozen values, closed words, no I/O."""

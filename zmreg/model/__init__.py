"""Nouns: frozen values that every other room may import; standard library only."""

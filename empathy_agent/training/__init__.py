"""Trains everything that ships: base, experts and heads. One file per stage."""

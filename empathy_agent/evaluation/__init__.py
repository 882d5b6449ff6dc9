"""Annotating conversations and measuring systems on them."""

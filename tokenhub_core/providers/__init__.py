"""Endpoints that serve models: how each kind is spoken to, and the one transport that reaches them."""

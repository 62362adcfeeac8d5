"""Evaluates a checkpoint as the paper does: on rendered portraits, whose true parameters are known, and on
folders of photos and results.

The renderer and a checkpoint come before; `face-anon evaluate` writes the report. Nothing else of the project
needs this package.
"""

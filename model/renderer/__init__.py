"""Renders portraits from parameters: what training and evaluation know the truth about.

Training's triplets and the evaluation's galleries come after; nothing comes before, and no photo of a person
is used.
"""

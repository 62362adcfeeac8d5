"""Faces in photos: finding, aligning, pasting back, covering and comparing them."""

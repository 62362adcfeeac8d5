"""Trains checkpoints: from rendered portraits or the authors' lists of files, to the seven parts of a folder.

`config` says what a run is, `loop` runs it, `export` writes the checkpoint that `model.checkpoint` loads.
"""

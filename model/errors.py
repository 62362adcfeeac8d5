"""The errors of the model package; every one carries a sentence that can be shown to the caller."""


class ModelError(Exception):
    """Base of all errors that this package raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint folder that cannot be loaded; names the file and the reason."""


class ParameterError(ModelError):
    """A parameter outside its range; names the parameter, its value and the limit."""


class PictureError(ModelError):
    """A picture that cannot be read, or that is over a limit."""


class StoppedError(ModelError):
    """Raised by a step callback to stop a run; the run ends within one step."""

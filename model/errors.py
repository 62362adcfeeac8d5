"""The errors of the model package; every one carries a sentence that can be shown to the caller."""


class ModelError(Exception):
    """Base of all errors that this package raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint folder that cannot be loaded; names the file and the reason."""


class ParameterError(ModelError):
    """A parameter outside its range; names the parameter, its value and the limit."""


class PictureError(ModelError):
    """A picture that cannot be read, or that is over a limit."""


class PictureTooLargeError(PictureError):
    """A picture with more pixels, or a longer side, than the limit; names both."""


class PictureUnreadableError(PictureError):
    """A picture of a kind we read whose bytes are truncated or corrupt."""


class PictureUnsupportedError(PictureError):
    """Bytes that are not a picture of a kind we read."""


class AlignmentError(ModelError):
    """Landmarks that no face can have, or a crop outside the photo; names the measure that is off."""


class NoFaceError(ModelError):
    """A picture that must show a face, and in which none was found."""


class StoppedError(ModelError):
    """Raised by a step callback to stop a run; the run ends within one step."""


class TrainingError(ModelError):
    """A training run that cannot start or go on as asked; names the field or file."""


class MemoryLimitError(ModelError):
    """A face that does not fit into the device's memory even when it is alone."""


class DeviceError(ModelError):
    """A device that has failed: nothing can be computed in this process any more."""

"""Runs a TensorFlow Lite network on the CPU, for the detector and the face mesh."""

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

Tensor = NDArray[np.float32]


class Network:
    """A network with one input, loaded from a .tflite file. Not to be used by two threads at once."""

    def __init__(self, weights: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_content=weights.read_bytes(), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = {output["name"]: output["index"] for output in self._interpreter.get_output_details()}

    def __call__(self, values: Tensor) -> dict[str, Tensor]:
        """Return copies of the outputs by name, for an input of the shape the network was made for."""
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

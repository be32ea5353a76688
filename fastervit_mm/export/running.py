"""Running an exported file."""
import json
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from torch import Tensor

from .errors import ExportError
from .writing import INPUT


class ExportedFile:
    """Exported file as a function: (B, C, H, W) -> tuple of tensors.

    Images are what ``facts['input']`` names: uint8 or float32, three channels as RGB, or float32,
    normalised. An ``.onnx`` file is run by onnxruntime on the CPU, a ``.pt2`` file by PyTorch.

    Args:
        path: Path of the file.

    Attributes:
        facts (dict[str, str]): The file's metadata (:mod:`fastervit_mm.export.metadata`).

    Raises:
        ExportError: For a file that does not exist, is of another kind or was not written by
            :func:`fastervit_mm.export.export`; when called, for images of an unsuitable shape.
    """

    def __init__(self, path: str):
        self.path = str(path)
        if not Path(path).is_file():
            raise ExportError(f'path={self.path!r}: ' + (
                'a folder; give the exported file' if Path(path).is_dir() else 'no such file'))
        if self.path.endswith('.onnx'):
            import onnxruntime
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                self.path, options, providers=['CPUExecutionProvider'])
            self.facts: Dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        elif self.path.endswith('.pt2'):
            extra = {'metadata.json': ''}
            self._session = None
            self._module = torch.export.load(self.path, extra_files=extra).module()
            self.facts = json.loads(extra['metadata.json'] or '{}')
        else:
            raise ExportError(f'path={self.path!r}: give a name that ends in .onnx or .pt2')
        if 'input' not in self.facts:
            raise ExportError(f'path={self.path!r}: was not written by this version of '
                              'tools/export.py; its metadata do not say what it takes')

    @property
    def outputs(self) -> List[str]:
        return json.loads(self.facts['outputs'])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tuple[Tensor, ...]:
        smallest = int(self.facts['smallest'])
        if min(images.shape[2:]) < smallest:
            raise ExportError(f'{self.path} does not take images of {tuple(images.shape)}: a side '
                              f'has at least {smallest} pixels')
        try:
            if self._session is None:
                return tuple(self._module(images))
            outputs = self._session.run(None, {INPUT: images.contiguous().numpy()})
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(f'{self.path} does not take images of {tuple(images.shape)}: '
                              f'{error}') from error
        return tuple(torch.from_numpy(output) for output in outputs)

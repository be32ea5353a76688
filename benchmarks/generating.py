"""Generated datasets, written atomically."""
import json
import shutil
from pathlib import Path
from typing import Callable, Dict, Union

import cv2
import numpy as np

STAMP = 'made_by.json'


def generate(root: Union[str, Path], recipe: Dict, write: Callable[[Path], None]) -> Path:
    """Write a dataset to a folder, unless it is complete.

    Args:
        root: The folder, such as ``data/shapes``.
        recipe: Everything that the files depend on, as JSON values; ``kind`` is the dataset's name,
            and ``version`` grows with every change of the drawings. Files of another recipe of this
            kind are replaced.
        write: Called with the folder to fill.

    Returns:
        The folder.

    Raises:
        FileExistsError: For a folder with other files; nothing in it is changed.
    """
    root = Path(root)
    stamp = root / STAMP
    earlier = json.loads(stamp.read_text()) if stamp.is_file() else {}
    if earlier == recipe:
        return root
    if earlier.get('kind') == recipe['kind']:
        shutil.rmtree(root)
    elif root.is_file() or root.is_dir() and any(root.iterdir()):
        raise FileExistsError(f'root={str(root)!r}: contains files other than those of the '
                              f'{recipe["kind"]} dataset. Give an empty or new folder')
    print(f'Generating the {recipe["kind"]} dataset in {root}, once')
    part = root.with_name(f'.{root.name}.part')
    shutil.rmtree(part, ignore_errors=True)  # of a run that was stopped
    part.mkdir(parents=True)
    write(part)
    (part / STAMP).write_text(json.dumps(recipe))
    if root.is_dir():
        root.rmdir()
    part.rename(root)
    return root


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a BGR or gray image, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'could not write {path}')

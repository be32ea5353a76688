"""Several images in one figure."""
from pathlib import Path
from typing import Sequence, Union


def contact_sheet(pictures: Sequence[Union[str, Path]], target: Union[str, Path], title: str,
                  columns: int = 2) -> None:
    """Draw pictures side by side into one PNG.

    It is 1100 to 2200 pixels wide; within these limits pictures keep their size, so that labels
    stay readable.

    Args:
        pictures: Files to show, row by row.
        target: PNG to write.
        title: Line above the pictures.
        columns: Pictures in a row. Default 2.

    Raises:
        ValueError: For no pictures.
    """
    import matplotlib.image
    from matplotlib.figure import Figure
    if not pictures:
        raise ValueError('pictures=[]: give at least one')
    images = [matplotlib.image.imread(p) for p in pictures]
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(10, 10 / columns * rows * height / width + 0.4), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, images):
        axis.imshow(image, interpolation='nearest')
    pixels = min(max(columns * width, 1100), 2200)
    figure.savefig(target, dpi=pixels / figure.get_figwidth())

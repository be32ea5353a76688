"""Page to try a checkpoint on an image."""
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np
from mmcv import imresize

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
# Folder of uploads and drawings; removed when the process ends.
_kept = tempfile.TemporaryDirectory(prefix='fastervit_mm_page_')
os.environ['GRADIO_TEMP_DIR'] = _kept.name
import gradio as gr  # noqa: E402

from ..weights import CheckpointError  # noqa: E402
from .finding import Trained  # noqa: E402
from .predicting import FilePredictor, Predictor, predictor_of  # noqa: E402

MAX_PIXELS = 4_000_000
_HINT = ('Click on the picture: what does the network look at from there? Blue is the place and '
         'its window.')
_NO_HINT = 'What a network looks at is shown of a checkpoint, not of a file.'


class Page:
    """Handlers of the page's events; they return plain values.

    Args:
        models: Models to pick from.
        device: Where to compute. Default the CPU.

    Raises:
        ValueError: For two models of the same name.
    """

    def __init__(self, models: Sequence[Trained], device: str = 'cpu'):
        self.models = {model.name: model for model in models}
        if len(self.models) < len(models):
            raise ValueError(f'models: two have the same name in {[m.name for m in models]}; '
                             'give each another name')
        # Two at a time: more large models would fill a GPU.
        self.predictor = lru_cache(maxsize=2)(
            lambda name: predictor_of(self.models[name], device))

    def predict(self, name: str, file: Optional[str], score_thr: float, block: int):
        """Return words, picture, table, attention, slider of blocks, and place."""
        if not file:
            return self._failed('Drop an image to begin.')
        try:
            predictor = self.predictor(name)
            image = _read(predictor, file)
            picture, rows, shown = predictor.predict(image, score_thr)
            block = max(min(int(block), predictor.num_blocks - 1), 0)
            height, width = image.shape[:2]
            place = (width / 2, height / 2)
            attention = predictor.attention(image, place, block)
        except (CheckpointError, OSError, ValueError) as error:
            return self._failed(f'**Sorry:** {error}')
        shown = f' The picture shows {shown}.' if shown else ''
        words = (f'{Path(file).name}, {width} x {height}: {len(rows)} {predictor.task}.{shown} '
                 f'{_HINT if predictor.num_blocks else _NO_HINT}')
        slider = gr.update(maximum=max(predictor.num_blocks - 1, 1), value=block,
                           visible=predictor.num_blocks > 1)
        return words, picture, [list(row) for row in rows], attention, slider, place

    def look(self, name: str, file: Optional[str], block: int, place: Tuple[float, float]):
        """Return words and the attention at a place."""
        if not file or place is None:
            return 'Drop an image to begin.', None
        try:
            predictor = self.predictor(name)
            attention = predictor.attention(_read(predictor, file), place, min(
                int(block), predictor.num_blocks - 1))
        except (CheckpointError, OSError, ValueError) as error:
            return f'**Sorry:** {error}', None
        if attention is None:
            return _NO_HINT, None
        x, y = place
        return f'{Path(file).name}, seen from x = {x:.0f}, y = {y:.0f}. {_HINT}', attention

    def place_of(self, name: str, file: str, clicked: Sequence[int], shown: np.ndarray
                 ) -> Tuple[float, float]:
        """Convert a click on the picture to image coordinates."""
        height, width = _read(self.predictor(name), file).shape[:2]
        return (min(clicked[0] * width / shown.shape[1], width - 1),
                min(clicked[1] * height / shown.shape[0], height - 1))

    @staticmethod
    def _failed(words: str):
        return words, None, [], None, gr.update(), None


def build_page(models: Sequence[Trained], device: str = 'cpu') -> gr.Blocks:
    """Build the page of trained models; ``launch(**SETTINGS)`` serves it.

    Args:
        models: At least one.
        device: Where to compute. Default the CPU.
    """
    page = Page(models, device)
    names = list(page.models)
    with gr.Blocks(title='FasterViT', analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        place = gr.State()
        gr.Markdown('# FasterViT\nPick a checkpoint, drop an image, then click on the picture.')
        with gr.Row():
            with gr.Column(scale=1):
                model = gr.Dropdown(names, value=names[0], label='Checkpoint', elem_id='model')
                file = gr.File(label='Image', elem_id='file')
                score = gr.Slider(0, 1, 0.3, step=0.05, label='Lowest score drawn (detectors)')
                block = gr.Slider(0, 1, 0, step=1, label='Block of stage 3', elem_id='block')
            with gr.Column(scale=2):
                words = gr.Markdown('Drop an image to begin.', elem_id='words')
                picture = gr.Image(label='Prediction', interactive=False, format='png',
                                   elem_id='picture', buttons=['fullscreen'])
                # A label would cover the picture's own titles.
                attention = gr.Image(show_label=False, interactive=False, format='png',
                                     elem_id='attention', buttons=['fullscreen'])
                table = gr.Dataframe(headers=['what', 'score or share'], interactive=False,
                                     elem_id='table')

        # One at a time: mmengine's default scope is global to the process.
        settings = dict(api_visibility='private', concurrency_id='network', concurrency_limit=1)
        answers = [words, picture, table, attention, block, place]
        for event in (file.change, model.change, score.release):
            event(page.predict, [model, file, score, block], answers, **settings)

        def click(name, path, number, shown, event: gr.SelectData):
            where = page.place_of(name, path, event.index, shown)
            return *page.look(name, path, number, where), where

        picture.select(click, [model, file, block, picture], [words, attention, place],
                       **settings)
        block.release(page.look, [model, file, block, place], [words, attention],
                      **settings)
    return blocks


# The system's fonts: the page loads nothing from other servers.
SETTINGS = dict(
    theme=gr.themes.Base(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
    share=False, ssr_mode=False, footer_links=[], show_error=True)


def _read(predictor: Union[Predictor, FilePredictor], file: str) -> np.ndarray:
    """Read an image by the pipeline, scaled down to ``MAX_PIXELS``."""
    try:
        image = predictor.read(file)
    except ValueError:
        raise ValueError(f'{Path(file).name} is not an image that can be read. Give a JPEG, PNG, '
                         'BMP, TIFF or WebP file') from None
    height, width = image.shape[:2]
    scale = (MAX_PIXELS / (height * width))**0.5
    return image if scale >= 1 else imresize(
        image, (max(1, int(width * scale)), max(1, int(height * scale))), interpolation='area')

"""tools/demo_app.py and a browser that visits it."""
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import mmcv
import numpy as np
import pytest
from PIL import Image

from benchmarks.shapes.scenes import CLASSES, draw_scene
from tests.conftest import REPO, load_make_env

FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync']


@contextmanager
def serving(folder, *arguments):
    """The tool, run in a folder; gives its address."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    log, uploads = Path(folder) / 'demo_app.log', Path(folder) / 'uploads'
    uploads.mkdir(exist_ok=True)
    with log.open('w') as out:
        server = subprocess.Popen(
            [sys.executable, str(REPO / 'tools/demo_app.py'), '--port', str(port), *arguments],
            cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={
                **os.environ, 'no_proxy': '*', 'TMPDIR': str(uploads)})
    try:
        opener = build_opener(ProxyHandler({}))
        until = time.monotonic() + 180
        while True:
            try:
                opener.open(f'http://127.0.0.1:{port}/', timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.3)
        yield f'http://127.0.0.1:{port}/'
    finally:
        server.terminate()
        server.wait()
        left = [path for path in uploads.rglob('*') if path.is_file()]
    assert not left, left  # a page that is stopped keeps nothing that was dropped on it


@contextmanager
def chromium():
    """Headless Chromium as tools/make_env.py finds it; without it the test is skipped."""
    from playwright.sync_api import sync_playwright
    make_env = load_make_env()
    found = make_env.find_browser()
    if found is None:
        message = ('there is no Chromium, in which the page of tools/demo_app.py is tested. '
                   f'Install one:  {make_env.BROWSER_REMEDY}')
        if make_env.in_ci():
            pytest.fail(f'CI=true, and {message}', pytrace=False)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser, address):
    """The page at an address; ``page.asked`` fills with what it asks for."""
    page = browser.new_page(viewport=dict(width=1280, height=1400))
    page.set_default_timeout(120_000)
    page.asked = []
    page.on('request', lambda request: page.asked.append(request.url))
    page.goto(address)
    page.get_by_text('Drop an image to begin.').wait_for()
    yield page
    page.close()


def upload(page, path):
    page.locator('#file input[type=file]').set_input_files(path)


def remove(page):
    page.locator('#file').get_by_role('button', name=re.compile('remove|clear', re.I)).first.click()
    words(page, 'Drop an image to begin')


def words(page, pattern):
    """Wait until the page's text matches a pattern."""
    page.wait_for_function(
        'pattern => new RegExp(pattern).test(document.querySelector("#words")?.innerText)',
        arg=pattern)
    return page.locator('#words').inner_text()


def pixels(page, name, other_than=None):
    """The picture shown in the browser, at its own size, and its address.

    Args:
        other_than: Address of the previous picture.
    """
    page.wait_for_function(
        '([name, old]) => { const i = document.querySelector(`#${name} img`); '
        'return i && i.src != old && i.complete && i.naturalWidth > 0 }', arg=[name, other_than])
    address = page.locator(f'#{name} img').evaluate('image => image.src')
    content = page.request.get(address).body()
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB')), address


def listed(page):
    """Rows of the table: classes found, and how many of each."""
    cells = page.locator('#table').get_by_role('gridcell').all_inner_texts()
    return [(name.strip(), amount.strip()) for name, amount in zip(cells[::2], cells[1::2])]


def check_that_the_page_shows_what_the_detector_learned(folder, scenes_at, share) -> None:
    """Scenes that it has not seen, through the browser: the right names, and they are drawn.

    Args:
        folder: Where ``make demo`` ran; ``work_dirs/`` lies in it.
        scenes_at: A folder for the scenes.
        share: Of right names, both among those found and those that are there.
    """
    found, truth, seen = Counter(), Counter(), None
    with chromium() as browser, serving(folder) as address, visiting(browser, address) as page:
        for seed in (7001, 7002, 7003):
            scene = draw_scene(seed)
            path = Path(scenes_at) / f'scene {seed}.png'
            mmcv.imwrite(scene.image, str(path))
            upload(page, path)
            words(page, f'scene {seed}.png, 160 x 160: \\d+ objects')
            drawn, seen = pixels(page, 'picture', seen)
            plain = mmcv.imrescale(mmcv.imread(str(path))[..., ::-1], 3)
            changed = np.abs(drawn.astype(int) - plain).max(-1) > 30
            shapes = mmcv.imrescale(np.any([i.mask for i in scene.instances], 0).astype(np.uint8),
                                    3, interpolation='nearest').astype(bool)
            # Boxes and masks lie on the shapes, and not just anywhere.
            assert changed[shapes].mean() > 0.5 > changed[~shapes].mean()
            assert pixels(page, 'attention')[0].std() > 5
            found += Counter((seed, name) for name, score in listed(page) if float(score) >= 0.5)
            truth += Counter((seed, CLASSES[i.label]) for i in scene.instances if not i.is_crowd)
            remove(page)
    assert sum(truth.values()) > 8
    right = sum((found & truth).values())
    assert right >= share * max(sum(found.values()), sum(truth.values())), (found, truth)

import pytest

from tests.apis import models


@pytest.fixture(scope='module')
def detector(tmp_path_factory, tiny_coco):
    return models.detector(tmp_path_factory.mktemp('detector'), tiny_coco)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory, tiny_ade20k):
    return models.segmentor(tmp_path_factory.mktemp('segmentor'), tiny_ade20k)

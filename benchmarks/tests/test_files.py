"""Times of exported detectors, of a small size and few laps."""
import json

from tests.running import run_tool

ENGINES = {'.py': ['pytorch'], '.onnx': ['onnxruntime', 'openvino', 'openvino_f32']}


def test_a_detector_is_not_timed_in_every_engine(tmp_path):
    """A real RetinaNet with random weights: PyTorch, the file and its int8 copy."""
    done = run_tool('benchmarks.speed.peer_files', '--heads', 'retinanet', '--backbones',
                    'fastervit-0', '--sizes', '96x128', '--rounds', '2', '--out', 'files.json',
                    cwd=tmp_path)
    assert done.returncode == 0, done.output
    rows = json.loads((tmp_path / 'files.json').read_text())['rows']
    stem = 'work_dirs/bench/files/retinanet-fastervit-0'
    assert [(row['what'].split('=')[0], row['engine']) for row in rows] == [
        (stem + suffix, engine) for suffix in ('.py', '.onnx', '.int8.onnx')
        for engine in ENGINES['.' + suffix.split('.')[-1]]]
    assert all(row['low'] <= row['seconds'] <= row['high'] and len(row['all_seconds']) == 2
               for row in rows)

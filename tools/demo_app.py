#!/usr/bin/env python
"""Try checkpoints in the browser: predictions and carriers' attention."""
import argparse
import signal
import socket
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.app import find_trained, pairs  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__ + ' Needs gradio: pip install \'.[app]\' in a clone.')
    parser.add_argument('files', nargs='*', metavar='CONFIG CHECKPOINT or MODEL.onnx',
                        help='networks to choose from; a file of tools/export.py stands alone '
                        '(default: those found in --work-dirs)')
    parser.add_argument('--work-dirs', metavar='DIR', help='folder to search for runs with a '
                        'config and a checkpoint (default: work_dirs, if no CONFIG is given)')
    parser.add_argument('--host', default='127.0.0.1', help='address to serve on; 0.0.0.0 admits '
                        'other machines (default: 127.0.0.1)')
    parser.add_argument('--port', type=int, default=7860, help='port to serve on (default: 7860)')
    parser.add_argument('--device', default='cpu', help='such as cpu or cuda:0 (default: cpu)')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes uploads on exit
    with errors_in_one_line('demo_app'):
        models = pairs(args.files)
        if args.work_dirs or not models:
            models += find_trained(args.work_dirs or 'work_dirs')
        _check_free(args.host, args.port)
        try:
            from fastervit_mm.app.page import SETTINGS, build_page
        except ModuleNotFoundError as error:
            if error.name != 'gradio':
                raise
            sys.exit('demo_app: gradio is not installed; pip install \'.[app]\' in a clone')
        page = build_page(models, args.device)
    print('Checkpoints: ' + ', '.join(model.name for model in models), flush=True)
    page.launch(server_name=args.host, server_port=args.port, **SETTINGS)


def _check_free(host, port):
    try:
        socket.create_server((host, port)).close()
    except socket.gaierror as error:
        sys.exit(f'demo_app: --host {host}: not an address of this machine ({error.strerror})')
    except (OSError, OverflowError) as error:
        sys.exit(f'demo_app: --port {port}: cannot be served on --host {host} '
                 f'({getattr(error, "strerror", error)}); give another, such as --port '
                 f'{port % 60000 + 1025}')


if __name__ == '__main__':
    main()

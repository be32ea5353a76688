#!/usr/bin/env python
"""Write a folder for the Hugging Face Hub, or check one.

Nothing is uploaded. The folder has config.json in timm's format, model.safetensors and a model
card; of a whole network also its config, as text. It is read without running code in it.
"""
import argparse
import shlex
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.apis.sharing import check_folder, share  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    write = commands.add_parser('write', help='write a folder')
    write.add_argument('config', help='config file, or the name of one of this package\'s')
    write.add_argument('checkpoint', help='checkpoint file, or a name such as fastervit://2-224-1k')
    write.add_argument('out', help='the folder, named as the repository will be; it must not exist '
                       'yet')
    write.add_argument('--backbone', action='store_true', help='only the backbone, for timm')
    write.add_argument('--license', help='the Hub\'s name of the weights\' licence, such as '
                       'apache-2.0 (default: the authors\' for a network that began with theirs)')
    write.add_argument('--metrics', metavar='FILE', help='metrics that tools/test.py left, '
                       'WORK_DIR/<date>_<time>/<date>_<time>.json')
    write.add_argument('--trained-by', metavar='COMMAND', help='command of the training, for the '
                       'model card')
    read = commands.add_parser('read', help='check a folder, and say how to use it')
    read.add_argument('folder', help='written by "share.py write", or downloaded')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('share'):
        if args.command == 'read':
            print(check_folder(args.folder))
            return
        print(share(args.config, args.checkpoint, args.out, args.backbone, args.license,
                    args.metrics, args.trained_by,
                    shlex.join(['python', 'tools/share.py', *sys.argv[1:]])))
        print(f'Read {args.out}/README.md, then: hf upload OWNER/{Path(args.out).name} '
              f'{shlex.quote(args.out)} .')


if __name__ == '__main__':
    main()

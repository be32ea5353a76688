"""Generate the shapes dataset, which the demos train on."""
import argparse

from benchmarks.shapes import make_shapes
from fastervit_mm.command_line import errors_in_one_line


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.shapes', description=__doc__)
    parser.add_argument('root', nargs='?', default='data/shapes',
                        help='empty or new folder (default: data/shapes, as the configs have it)')
    args = parser.parse_args()
    with errors_in_one_line('shapes'):
        make_shapes(args.root)


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""Build sdist and wheel, check both, and list what is left to a person.

Run by `make release`. The version is that of fastervit_mm/version.py; nothing is uploaded.
"""
import hashlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ('`make test-all`, `make matrix` and `make audit` on this commit, if not done',
          'git tag v{version} && git push origin v{version}',
          'python -m twine upload dist/*   (asks for a token of pypi.org)',
          'a release of the tag where the repository is, with the section of CHANGELOG.md',
          '`make docs`, and put work_dirs/site where the documentation is served')


def main():
    version = runpy.run_path(str(ROOT / 'fastervit_mm/version.py'))['__version__']
    dist = ROOT / 'dist'
    shutil.rmtree(dist, ignore_errors=True)
    # Without isolation: with the versions of constraints.txt, and without a network.
    run('build', '--no-isolation', '--outdir', dist)
    files = sorted(dist.iterdir())
    run('twine', 'check', '--strict', *files)
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f'{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.2f} MB, sha256 {digest}')
    print(f'\nLeft to a person, for {version}:')
    wheel, = dist.glob('*.whl')
    for number, step in enumerate([*unready(ROOT, version, wheel), *ALWAYS], 1):
        print(f'{number}. {step.format(version=version)}')


def run(module, *arguments):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-m', module, *map(str, arguments)],
                          cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{done.stdout}{done.stderr}\nmake_release: {module} failed')


def unready(root, version, wheel):
    """What has to change in a clone before its wheel is published."""
    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=root, text=True, capture_output=True,
                              check=True).stdout.strip()

    found = []
    if changed := git('status', '--porcelain'):
        found.append(f'commit, and build again: {len(changed.splitlines())} files differ from the '
                     'last commit')
    heading = re.search('^## (.*)$', (root / 'CHANGELOG.md').read_text(encoding='utf-8'), re.M)[1]
    if not re.fullmatch(rf'{re.escape(version)} - \d{{4}}-\d\d-\d\d', heading):
        found.append(f'CHANGELOG.md: its first section is "{heading}"; name it "{version} - '
                     '<year>-<month>-<day>"')
    if git('tag', '--list', f'v{version}'):
        found.append(f'v{version} is tagged already: set another version in '
                     'fastervit_mm/version.py')
    with zipfile.ZipFile(wheel) as archive:
        name, = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = archive.read(name).decode()
    if not re.search('^(?:Project-URL|Home-page):', metadata, re.M):
        found.append('setup.py: set url to the repository\'s address; without it the page on '
                     'pypi.org has no link to the sources, and the README\'s links lead nowhere')
    return found


if __name__ == '__main__':
    main()

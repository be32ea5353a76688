#!/usr/bin/env python3
"""Report licences and known vulnerabilities of the packages in .venv.

Needs only Python's standard library; pip-audit is installed into a separate environment, .audit.
Run by `make audit`. Exit status 0 only if every version was looked up and nothing was found.
"""
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AUDIT = ROOT / '.audit'
PYTHON = AUDIT / 'bin' / 'python'
OURS = 'fastervit_mm'

# Licences that do not allow every use, and why each package is accepted.
RESTRICTED = re.compile(r'GPL|GNU|proprietary|NVIDIA|non-?commercial|CC-BY-NC|not stated', re.I)
EXPECTED = {
    'fastervit': 'the authors\' package, with which the tests compare; no part of this package or '
                 'of what it requires, only of the extra `test`',
    'autocommand': 'within setuptools, which puts it on the path once pkg_resources is imported; '
                   'only setuptools runs it',
    'docutils': 'under the GPL in a few of its files; only twine, of the extra `dev`, runs it',
    'nvidia': 'a library of CUDA, free of charge, that PyTorch\'s builds for CUDA bring',
    'cuda': 'names the version of those',
}


def main():
    found = installed()
    print(f'{len(found)} distributions in {sys.prefix}, with their versions and licences:\n')
    unexpected = show_licences(found)
    answers, reason = look_up(found)
    skipped = [a for a in answers if 'skip_reason' in a]
    vulnerable = [a for a in answers if a.get('vulns')]
    print()
    for answer in vulnerable:
        for vuln in answer['vulns']:
            fixed = ', '.join(vuln['fix_versions']) or 'no version yet'
            print(f'{answer["name"]} {answer["version"]}: {vuln["id"]}, repaired in {fixed}')
    problems = []
    if reason or skipped:
        problems.append(f'vulnerabilities: {reason or ""}' + (
            f'{len(skipped)} of {len(answers)} versions could not be looked up, such as '
            f'{skipped[0]["name"]} ({skipped[0]["skip_reason"]})' if skipped else '')
            + '. Run it where https://pypi.org/pypi/NAME/VERSION/json or api.osv.dev answers')
    if vulnerable:
        problems.append(f'vulnerabilities: {len(vulnerable)} distributions have known ones')
    if unexpected:
        problems.append('licences: ' + ', '.join(unexpected) + ' may restrict use; check, '
                        'then add to EXPECTED in tools/make_audit.py with the reason')
    for problem in problems:
        print(f'audit: {problem}', file=sys.stderr)
    if not problems:
        print(f'audit: {len(answers)} versions looked up, no known vulnerability, no unexpected '
              'licence')
    return int(bool(problems))


def installed():
    """(name, version, licence) of each distribution except this package."""
    found = {}
    for each in distributions():
        name = re.sub(r'[-_.]+', '-', each.metadata['Name']).lower()
        if name != OURS.replace('_', '-'):
            found.setdefault(name, (name, each.version, licence(each.metadata)))
    return sorted(found.values())


def licence(metadata):
    """Licence expression of a distribution, else classifiers, else first line."""
    if metadata.get('License-Expression'):
        return metadata['License-Expression']
    classifiers = [c.rpartition(' :: ')[2] for c in metadata.get_all('Classifier') or []
                   if c.startswith('License ::') and c.count(' :: ') > 1 or 'Proprietary' in c]
    text = (metadata.get('License') or '').strip().split('\n')[0][:60]
    return ' and '.join(classifiers) or (text if text not in ('', 'UNKNOWN') else 'not stated')


def show_licences(found):
    """Print distributions by licence; return unexpected ones."""
    by_licence = defaultdict(list)
    for name, version, text in found:
        by_licence[text].append(f'{name}=={version}')
    for text, names in sorted(by_licence.items(), key=lambda item: -len(item[1])):
        print(f'{text}: {" ".join(names)}')
    print()
    unexpected = []
    for name, _, text in found:
        if RESTRICTED.search(text):
            reason = EXPECTED.get(name, EXPECTED.get(name.partition('-')[0]))
            print(f'{name} ({text}): {reason or "NOT EXPECTED"}')
            if not reason:
                unexpected.append(f'{name} ({text})')
    return unexpected


def look_up(found):
    """pip-audit's answers, and the reason if there are none."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / 'pinned.txt'
        # A build of torch is called 2.13.0+cpu; databases know 2.13.0.
        pinned.write_text(''.join(f'{name}=={version.partition("+")[0]}\n'
                                  for name, version, _ in found))
        try:
            if not PYTHON.exists():
                subprocess.run([sys.executable, '-m', 'venv', str(AUDIT)], check=True,
                               capture_output=True)
            subprocess.run([str(PYTHON), '-m', 'pip', 'install', '--quiet', 'pip-audit'],
                           check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            last = (error.stderr or b'').strip()[-200:]
            return [], f'pip-audit could not be installed ({last!r}); nothing was looked up'
        best = [], 'no answer'
        for service in ('pypi', 'osv'):
            done = subprocess.run(
                [str(PYTHON), '-m', 'pip_audit', '-r', str(pinned), '--no-deps', '--disable-pip',
                 '-f', 'json', '-s', service, '--progress-spinner', 'off', '--timeout', '10'],
                capture_output=True, text=True)
            try:
                answers = json.loads(done.stdout)['dependencies']
            except ValueError:
                error = done.stderr.strip().splitlines()[-1:] or ['']
                best = best if best[0] else ([], f'{service} gave no answer ({error[0][-150:]})')
                continue
            # pip-audit's own status is 0 if nothing could be looked up.
            if not any('skip_reason' in a for a in answers):
                return answers, ''
            best = answers, ''
        return best


if __name__ == '__main__':
    sys.exit(main())

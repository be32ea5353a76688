"""No network and no programs at import or in training; licences; `make audit`."""
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO, TINY, load_program

# In a fresh Python. An audit hook sees every socket and every process that Python code starts.
WATCHED = f"""
import pkgutil, sys, importlib
import torch  # a build for CUDA asks ldconfig where libdl is

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto',
                 'socket.bind', 'urllib.Request', 'os.system', 'os.posix_spawn', 'os.exec',
                 'subprocess.Popen'):
        print('SEEN', event, arguments, flush=True)
        raise RuntimeError(f'{{event}}: {{arguments}}')

sys.addaudithook(watch)
import fastervit_mm
names = [m.name for m in pkgutil.walk_packages(fastervit_mm.__path__, 'fastervit_mm.')]
for name in names:
    importlib.import_module(name)
print('imported', len(names))

from fastervit_mm.models import build_model
from fastervit_mm.config_files import get_config
cfg = get_config('mmseg/upernet_fvit')
cfg.model.backbone = dict(type='FasterViT', arch={TINY!r})
cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=8)
cfg.model.auxiliary_head.update(in_channels=64, channels=8)
model = build_model(cfg)
model.init_weights()
model.train()
logits = model(torch.rand(2, 3, 64, 96), mode='tensor')
logits.mean().backward()
torch.optim.AdamW(model.parameters()).step()
model.eval()
model(torch.rand(1, 3, 70, 90), mode='tensor')
print('ran')
"""


def test_neither_import_nor_training_uses_the_network_or_starts_a_program(tmp_path):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', WATCHED], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(REPO)})
    assert 'SEEN' not in done.stdout and done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert int(done.stdout.split('imported ')[1].split()[0]) > 60 and 'ran' in done.stdout


def test_the_audit_hook_sees_requests_programs_and_sockets(tmp_path):
    """Otherwise the test above could not fail."""
    acts = ("""
import socket, subprocess, urllib.request
for act in (lambda: urllib.request.urlopen('http://127.0.0.1:9'), lambda: subprocess.run(['true']),
            lambda: socket.create_connection(('127.0.0.1', 9))):
    try:
        act()
    except RuntimeError:
        pass
""")
    hook = WATCHED.split('import fastervit_mm')[0].replace('import torch ', '')
    done = subprocess.run([sys.executable, '-c', hook + acts], text=True, cwd=tmp_path,
                          capture_output=True)
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        'urllib.Request', 'subprocess.Popen', 'socket.getaddrinfo'], done.stderr


@pytest.fixture
def audit():
    return load_program('tools/make_audit.py')


LICENCES = [('fastervit', '1', 'NVIDIA Source Code License-NC'), ('torch', '2', 'BSD-3-Clause')]


def test_the_audit_names_licences_that_are_not_for_every_use_and_not_known(audit, capsys):
    assert audit.show_licences(LICENCES) == []
    assert 'fastervit (NVIDIA Source Code License-NC)' in capsys.readouterr().out
    assert audit.show_licences([('other', '1', 'GNU General Public License v3 (GPLv3)')]) == [
        'other (GNU General Public License v3 (GPLv3))']
    found = dict((name, licence) for name, _, licence in audit.installed())
    assert found['fastervit'] == LICENCES[0][2] and 'not stated' not in found['torch']


@pytest.mark.parametrize('answers, reason, status, line', [
    ([dict(name='a', version='1', vulns=[])], '', 0, ''),
    ([dict(name='a', version='1', vulns=[]), dict(name='b', skip_reason='not found')], '', 1,
     'audit: vulnerabilities: 1 of 2 versions could not be looked up, such as b (not found)'),
    ([], 'osv gave no answer', 1, 'audit: vulnerabilities: osv gave no answer'),
    ([dict(name='a', version='1', vulns=[dict(id='CVE-1', fix_versions=['2'])])], '', 1,
     'audit: vulnerabilities: 1 distributions have known ones')])
def test_the_audit_fails_on_an_unknown_answer(answers, reason, status, line, audit, capsys,
                                              monkeypatch):
    """pip-audit exits with 0 if no database answers; its replies are simulated."""
    monkeypatch.setattr(audit, 'look_up', lambda found: (answers, reason))
    monkeypatch.setattr(audit, 'installed', lambda: LICENCES)
    assert audit.main() == status
    printed = capsys.readouterr()
    assert printed.err.startswith(line) and printed.err.count('\n') == status
    assert ('CVE-1, repaired in 2' in printed.out) == any(a.get('vulns') for a in answers)

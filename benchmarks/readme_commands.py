"""Time the README's two commands as written, each in a fresh clone and a fresh environment of its own.

    python3 benchmarks/readme_commands.py      writes results/readme_commands.json; needs Python 3.11+, git, a package index and 12 GB

The index and the teacher's page read it: execute both afterwards, and run .ci/readme.py.
"""
import datetime, json, os, platform, re, subprocess, sys, tempfile, time
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def git(*args): return subprocess.run(['git', '-C', root, *args], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()

def commands():
    "The lines of the README's shell blocks that make an environment."
    blocks = re.findall(r'```sh\n(.*?)```', (root / 'README.md').read_text(encoding='utf8'), re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith('python3 -m venv')]

def timed(command):
    "Run one command in a clone that nothing was run in; when the last of its parts begins says how long the installation took."
    *install, last = command.split(' && ')
    traced = ' && '.join([*install, 'date +%s.%N > ../installed', last])
    environ = {k: v for k, v in os.environ.items() if k not in ('VIRTUAL_ENV', 'PYTHONPATH')}
    with tempfile.TemporaryDirectory(prefix='ddpm_mnist_') as tmp:
        subprocess.run(['git', 'clone', '--quiet', root, f'{tmp}/clone'], check=True)
        environ |= {'DDPM_MNIST_CACHE': f'{tmp}/cache', 'MPLCONFIGDIR': f'{tmp}/mpl'}
        start = time.time()
        subprocess.run(['bash', '-c', traced], cwd=f'{tmp}/clone', env=environ, stdin=subprocess.DEVNULL, check=True)
        end, installed = time.time(), float(Path(tmp, 'installed').read_text())
        versions = subprocess.run([f'{tmp}/clone/.venv/bin/python', '-c', 'import sys, torch; print(sys.version.split()[0], torch.__version__)'],
                                  check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    return dict(name=last, command=command, install_seconds=round(installed - start, 1), run_seconds=round(end - installed, 1)), versions

def cpu_model():
    info = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*:\s*(.+)', info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()

def cores(): return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()

if git('status', '--porcelain', '--untracked-files=no'): sys.exit('commit first: a clone holds only what is committed')
commit = git('rev-parse', 'HEAD')
runs = [timed(c) for c in commands()]
python, torch = runs[-1][1]
result = dict(command='python3 benchmarks/readme_commands.py', commit=commit, date=datetime.date.today().isoformat(),
              machine=dict(cpu=cpu_model(), cores=cores(), python=python, torch=torch), commands=[r for r, _ in runs])
(root / 'results').mkdir(exist_ok=True)
(root / 'results' / 'readme_commands.json').write_text(json.dumps(result, indent=1) + '\n')
print(json.dumps(result, indent=1))

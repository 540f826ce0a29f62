"What .ci/run checks, in the clone that holds this file. One line a check; the last line is `N passed, N failed`."
import json, os, re, shutil, signal, subprocess, sys, time
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from build_site import page_name

root = Path(__file__).resolve().parent.parent
borrowed = os.environ.get('CI_VENV')
venv = Path(borrowed or root / '.venv').expanduser().resolve()
notebooks = sorted(p for p in (root / 'nbs').glob('*.ipynb') if not p.name.startswith('_'))
environ = {**os.environ, 'PATH': f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}", 'MPLBACKEND': 'agg', **({'PYTHONPATH': str(root)} if borrowed else {})}

class Failed(Exception): "A check's reason for being red."

def expect(condition, reason):
    if not condition: raise Failed(reason)

def sh(command, minutes=5, env=environ):
    "Run a line of bash in the clone; its whole output, or Failed with the end of it."
    with subprocess.Popen(['bash', '-c', command], cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors='replace', start_new_session=True) as p:
        try: out, _ = p.communicate(timeout=60 * minutes)
        except BaseException as e:
            os.killpg(p.pid, signal.SIGKILL)
            if not isinstance(e, subprocess.TimeoutExpired): raise
            raise Failed(f'{command}: not done after {minutes} minutes\n{p.communicate()[0][-2000:]}') from None
    expect(p.returncode == 0, f'{command}: exit status {p.returncode}\n{out[-3000:]}')
    return out

def changes(): return sh("git status --porcelain && git --no-pager diff --stat").strip()

def unchanged_by(command, minutes=5):
    "Nothing that git tracks or would track differs after the command."
    sh('git checkout -q . && git clean -fdq')
    sh(command, minutes)
    changed = changes()
    sh('git checkout -q . && git clean -fdq')
    expect(not changed, f'{command} changed:\n{changed}')

def cells(path): return json.loads(path.read_text(encoding='utf8'))['cells']

# the checks, in the order they run

def saved_outputs_hold_no_error_and_no_log():
    expect(notebooks, 'no notebook in nbs/')
    outputs = [(p.name, o) for p in notebooks for c in cells(p) for o in c.get('outputs', [])]
    bad = [f"{name}: {o['ename']}: {o['evalue']}" for name, o in outputs if o['output_type'] == 'error']
    bad += [f"{name}: a warning or a log: {''.join(o['text'])[:200]}" for name, o in outputs if o.get('name') == 'stderr']
    expect(not bad, '\n'.join(bad))
    return f'{len(notebooks)} notebooks'

def links_to_notebooks_end_in_ipynb():
    "The site gives the page of 00_data.ipynb another name than 00_data.html, and follows links to the notebook itself."
    bad = [f'{p.name}: {link}' for p in notebooks for c in cells(p) if c['cell_type'] == 'markdown'
           for link in re.findall(r'\]\((\d\d\w*\.html[^)]*)\)', ''.join(c['source']))]
    expect(not bad, '\n'.join(bad))

def equations_and_captions_are_counted():
    "Each kind from 1 up; and no figure of a lesson without a caption."
    bad, total = [], 0
    for p in notebooks:
        text = [''.join(c['source']) if c['cell_type'] == 'markdown' else '' for c in cells(p)]
        counted = {'Figure': [re.match(r'\*Figure (\d+)\. ', t) for t in text], 'Table': [re.match(r'\*Table (\d+)\. ', t) for t in text], 'equation': [m for t in text for m in re.finditer(r'\\tag\{(\d+)\}', t)]}
        for kind, found in counted.items():
            numbers = [int(m[1]) for m in found if m]
            total += len(numbers)
            if numbers != [*range(1, len(numbers) + 1)]: bad.append(f'{p.name}: {kind} {numbers}, expected 1 to {len(numbers)}')
        if p.name == 'index.ipynb': continue
        for i, c in enumerate(cells(p)):
            caption = next((t for t in text[i:] if t), '')
            if any('image/png' in o.get('data', {}) for o in c.get('outputs', [])) and not caption.startswith('*Figure '): bad.append(f'{p.name}: a figure, and after it {caption[:60]!r}, expected "*Figure …"')
    expect(not bad, '\n'.join(bad))
    return f'{total} numbers'

def readme_is_what_the_index_generates():
    unchanged_by(f'{sys.executable} -B .ci/readme.py')

def test_command():
    "The README's line that ends in nbdev_test."
    found = [l for block in re.findall(r'```(?:sh|bash)\n(.*?)```', (root / 'README.md').read_text(encoding='utf8'), re.S)
             for l in block.splitlines() if l.endswith('nbdev_test')]
    expect(len(found) == 1, f'README.md has {len(found)} command lines that end in nbdev_test, expected 1')
    return found[0]

def readme_command_passes_every_notebook():
    start, command = time.time(), test_command()
    without_venv = {k: v for k, v in os.environ.items() if k not in ('VIRTUAL_ENV', 'PYTHONPATH')}
    out = sh('nbdev_test', 30) if borrowed else sh(command, 60, without_venv)
    expect('Success.' in out, f'nbdev_test says no "Success.":\n{out[-2000:]}')
    left = changes()
    expect(not left, f'the tests left behind:\n{left}')
    return f'{time.time() - start:.0f} s'

def every_notebook_is_tested():
    "nbdev_test exits 0 when no notebook matched: ask nbdev which ones match, and look for a cell in each that runs."
    out = sh('''python -c "from nbdev.doclinks import nbglob; print('eligible', *(p.name for p in nbglob(as_path=True)))"''')
    eligible = set(next(l for l in out.splitlines() if l.startswith('eligible')).split()[1:])
    skipped = re.compile(r'^#\|\s*eval:\s*false|nbdev_export\(', re.M)
    tested = {p.name for p in notebooks if p.name in eligible and 'skip_exec: true' not in p.read_text(encoding='utf8')
              and not (p.parent / '.notest').exists() and any(c['cell_type'] == 'code' and not skipped.search(''.join(c['source'])) for c in cells(p))}
    expect(tested, 'no notebook was tested')
    missed = {p.name for p in notebooks} - tested
    expect(not missed, f'not tested: {", ".join(sorted(missed))}')
    return f'{len(tested)} notebooks'

def modules_are_what_the_notebooks_export():
    modules = ' '.join(sh("git ls-files 'ddpm_mnist/*.py'").split())
    unchanged_by(f'rm {modules} && git checkout -q ddpm_mnist/__init__.py && nbdev_export')

def notebooks_are_clean(): unchanged_by('nbdev_clean')

class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding='utf8'))
    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if value and (name == 'id' or (tag == 'a' and name == 'name')): self.ids.add(value)
            if value and name in ('href', 'src'): self.links.append(value)

page = cache(Page)

def broken_links(site, base):
    "Links between the pages of a site, its own full address included, that lead nowhere."
    for source in sorted(site.rglob('*.html')):
        for link in page(source).links:
            url = urlsplit('/' + link.removeprefix(base).lstrip('/') if link.startswith(base) else link)
            if url.scheme or url.netloc: continue
            path = unquote(url.path)
            target = (site / path.lstrip('/') if path.startswith('/') else source.parent / path) if path else source
            if target.is_dir(): target = target / 'index.html'
            if not target.exists(): yield f'{source.name}: {link}'
            elif url.fragment and target.suffix == '.html' and unquote(url.fragment) not in page(target).ids: yield f'{source.name}: {link} (no such heading)'

def check_site(site):
    settings = dict(l.split(' = ', 1) for l in (root / 'settings.ini').read_text().splitlines() if ' = ' in l)
    base = (settings['doc_host'] + settings['doc_baseurl']).replace('%(user)s', settings['user']).replace('%(repo)s', settings['repo'])
    missing = [p.name for p in notebooks if not (site / page_name(p)).exists()]
    expect(not missing, f'no page for {", ".join(missing)}')
    broken = list(broken_links(site, base))
    expect(not broken, 'broken links:\n' + '\n'.join(broken))
    return f"{len(list(site.rglob('*.html')))} pages"

def site_builds_with_smalldocs():
    sh('python .ci/build_site.py', 10)
    return check_site(root / '_proc' / '_docs')

def site_builds_with_quarto():
    sh('touch README.md && nbdev_docs', 10) # a README newer than its notebook is left alone
    return check_site(root / '_docs')

def install_a_browser():
    "The tests fail without one, and without npm, where CI is set; a hosted runner brings both, a bare Debian gets its own."
    missing = ['chromium'] * (not any(map(shutil.which, ('chromium', 'google-chrome')))) + ['npm'] * (bool(os.environ.get('CI')) and not shutil.which('npm'))
    if missing: sh(f"sudo=$(command -v sudo); $sudo apt-get update -q && $sudo apt-get install -qy {' '.join(missing)}", 10)

def tests_folder_passes():
    install_a_browser()
    built = {'SITE': str(root / '_proc' / '_docs')} if (root / '_proc' / '_docs' / 'index.html').exists() else {}
    return sh('python -m pytest -q -p no:cacheprovider tests', 60, {**environ, **built}).strip().splitlines()[-1]

checks = [saved_outputs_hold_no_error_and_no_log, links_to_notebooks_end_in_ipynb, equations_and_captions_are_counted, readme_is_what_the_index_generates, readme_command_passes_every_notebook, every_notebook_is_tested,
          modules_are_what_the_notebooks_export, notebooks_are_clean, site_builds_with_smalldocs]
if (root / 'tests').exists(): checks.append(tests_folder_passes)
if shutil.which('quarto'): checks.append(site_builds_with_quarto) # last: it takes the other site's place

if changes(): sys.exit(f'{root} has changes that the checks would throw away; run .ci/run, which works in a clone')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
failed = 0
for check in checks:
    name = check.__name__.replace('_', ' ')
    try: detail = check()
    except Exception as e:
        failed += 1
        print(f'FAIL {name}: {e if isinstance(e, Failed) else repr(e)}', flush=True)
    else: print(f'ok   {name}' + (f' ({detail})' if detail else ''), flush=True)
print(f'{len(checks) - failed} passed, {failed} failed')
sys.exit(bool(failed))

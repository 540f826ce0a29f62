"Write README.md from nbs/index.ipynb: its text and its saved outputs as they are, pictures as files in nbs/images."
import base64, json, re
from pathlib import Path

root = Path(__file__).resolve().parent.parent
images = root / 'nbs' / 'images'

def directives(source): return set(re.findall(r'^#\|\s*(.+?)\s*$', source, re.M))

def code(source): return re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()

def save_picture(png, name, alt):
    images.mkdir(exist_ok=True)
    (images / name).write_bytes(base64.b64decode(png))
    return f'![{alt}](nbs/images/{name})'

def caption(source): return next((d.removeprefix('fig-cap:').strip(' "') for d in directives(source) if d.startswith('fig-cap:')), '')

def output(o, source, name):
    data = {k: ''.join(v) for k, v in o.get('data', {}).items()}
    if 'image/png' in data: return save_picture(data['image/png'], name, caption(source)) + f'\n\n*{caption(source)}*' * bool(caption(source))
    if 'text/markdown' in data: return data['text/markdown'].strip()
    text = ''.join(o.get('text', '')) or data.get('text/plain', '')
    return '```text\n' + text.strip() + '\n```' if text.strip() else ''

def cell_markdown(i, cell):
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return [source.strip()]
    if 'hide' in directives(source): return []
    shown = [] if 'echo: false' in directives(source) else [f'```python\n{code(source)}\n```']
    return shown + [output(o, source, f'index_{i}_{j}.png') for j, o in enumerate(cell['outputs'])]

def point_into_nbs(markdown): return re.sub(r'(\]\(|(?:src|srcset)=")(?!https?:|#|nbs/)([\w./-]+)', r'\1nbs/\2', markdown)

def readme(notebook):
    parts = [p for i, c in enumerate(notebook['cells']) for p in cell_markdown(i, c) if p]
    return '<!-- made by .ci/readme.py from nbs/index.ipynb: edit that -->\n\n' + point_into_nbs('\n\n'.join(parts)) + '\n'

for old in images.glob('index_*.png'): old.unlink()
(root / 'README.md').write_text(readme(json.loads((root / 'nbs' / 'index.ipynb').read_text(encoding='utf8'))), encoding='utf8')

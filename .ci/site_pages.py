"Pages whose source is not in nbs/: exercises, model cards, changelog, how to contribute; signatures as they are written; links to numbered equations and figures. The site's builder runs this first, in the folder it builds from."
import json, re, shutil
from configparser import ConfigParser
from pathlib import Path

root, site = Path(__file__).resolve().parent.parent, Path.cwd()
settings = ConfigParser(delimiters=['='])
settings.read(root / 'settings.ini', encoding='utf8')
url, branch = settings['DEFAULT']['git_url'], settings['DEFAULT']['branch']

def front_matter(**fields): return '---\n' + ''.join(f'{k}: {json.dumps(v, ensure_ascii=False)}\n' for k, v in fields.items()) + '---\n'

def point_out_of(folder, markdown):
    "Links to notebooks of nbs/ stay in the site, others lead to the repository."
    def target(m):
        path = (folder / m[1]).resolve().relative_to(root).as_posix()
        return f'](/{path.removeprefix("nbs/")}' if path.startswith('nbs/') else f']({url}/blob/{branch}/{path}'
    return re.sub(r'\]\((?!https?:|#|mailto:)([^)#]+)', target, markdown)

def page(source, name):
    "A Markdown file whose first line is its title."
    title, text = re.fullmatch(r'# (.+?)\n(.*)', source.read_text(encoding='utf8'), re.S).groups()
    target = site / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(front_matter(title=title) + point_out_of(source.parent, text), encoding='utf8')

def exercise(source):
    "A student's notebook, as a page, with what to do with it."
    nb = json.loads(source.read_text(encoding='utf8'))
    title, description, text = re.fullmatch(r'# (.+?)\n\n> (.+?)\n\n(.*)', ''.join(nb['cells'][0]['source']), re.S).groups()
    download = f"{url}/raw/v{settings['DEFAULT']['version']}/{source.relative_to(root).as_posix()}"
    colab = re.search(r'\]\((https://colab[^)]+)\)', ''.join(nb['cells'][1]['source']))[1] # of the badge
    lesson = next((root / 'nbs').glob(f'[0-9][0-9]_{source.stem}*.ipynb')).name
    head = [dict(cell_type='raw', metadata={}, source=front_matter(title=title, description=description)),
            dict(cell_type='markdown', metadata={}, source=f'This is a notebook to work in: [download it]({download}), or [open it in Colab]({colab}). It belongs to [this lesson](../{lesson}); how it goes, [the page of all exercises](../exercises.ipynb) says.\n\n{text}')]
    target = site / 'exercises' / source.name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({**nb, 'cells': head + nb['cells'][1:]}, ensure_ascii=False), encoding='utf8')

def signatures_as_written(text):
    "In code: names in backticks without the links that nbdev gives them, classes without the module that runs the notebook, no type that is only that of None."
    plain = lambda code: re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', code).replace('__main__.', '').replace(':NoneType=None', '=None')
    return re.sub(r'^```.*?^```', lambda code: plain(code[0]), text, flags=re.M | re.S)

def linked(text):
    "Numbered equations, figures and tables get an anchor, and mentions of them, of this page or `of [another](page)`, a link to it."
    def mention(m):
        kind, number = ('equation', m[2]) if m[2] else (m[3].lower(), m[4])
        return f'[{m[1]}]({m[6] or ""}#{kind}-{number}){m[5] or ""}'
    text = re.sub(r'(?<![*\d])(?<!\d, )\b([Ee]q\. \((\d+)\)|([Ff]igure|[Tt]able) (\d+))( of \[[^\]]*\]\(([^)#]+)\))?', mention, text) # not a caption's own number, nor those of a paper of 2021
    text = re.sub(r'^\*(Figure|Table) (\d+)\.', lambda m: f'[]{{#{m[1].lower()}-{m[2]}}}{m[0]}', text)
    return re.sub(r'^\$\$(?:(?!\$\$).)*\\tag\{(\d+)\}\s*\$\$$', r'::: {#equation-\1}\n\g<0>\n:::', text, flags=re.M | re.S)

for path in sorted(site.glob('*.ipynb')):
    nb = json.loads(path.read_text(encoding='utf8'))
    for cell in nb['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = linked(''.join(cell['source']))
    for output in [o for c in nb['cells'] for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]:
        output['data']['text/markdown'] = signatures_as_written(''.join(output['data']['text/markdown']))
    path.write_text(json.dumps(nb, ensure_ascii=False), encoding='utf8')
for notebook in sorted((root / 'nbs' / 'exercises').glob('*.ipynb')): exercise(notebook)
for card in sorted((root / 'ddpm_mnist' / 'assets' / 'models').glob('*.md')): page(card, f'models/{card.name}')
page(root / 'CHANGELOG.md', 'changelog.md')
page(root / 'CONTRIBUTING.md', 'contributing.md')
shutil.copytree(root / 'nbs' / 'images', site / 'images', dirs_exist_ok=True)

"Build the site without Quarto, by nbdev and smalldocs; prints the folder."
import re, shutil, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
process = 'from nbdev.quarto import refresh_quarto_yml; from nbdev.serve import proc_nbs; refresh_quarto_yml(); proc_nbs(n_workers=1, force=True)'

def page_name(notebook): return re.sub(r'^\d+[a-zA-Z]?_', '', notebook.stem) + '.html' # as nbdev's output-file says

def build():
    for command in ([sys.executable, '-W', 'ignore', '-c', process], [sys.executable, '-m', 'smalldocs.cli', 'render', '_proc']): subprocess.run(command, cwd=root, check=True)
    site = root / '_proc' / '_docs'
    for notebook in (root / 'nbs').glob('[0-9]*.ipynb'): shutil.copy(site / f'{notebook.stem}.html', site / page_name(notebook)) # smalldocs reads no output-file
    return site

if __name__ == '__main__': print(build())

"All settings live in settings.ini; this file only hands them to setuptools."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).parent / 'settings.ini', encoding='utf8')
s = cfg['DEFAULT']

setup(
    name=s['lib_name'], version=s['version'], description=s['description'], keywords=s['keywords'],
    author=s['author'], author_email=s['author_email'], url=s['git_url'], license='Apache-2.0',
    long_description=(Path(__file__).parent / 'README.md').read_text(encoding='utf8') if (Path(__file__).parent / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    packages=[*find_packages(include=['ddpm_mnist*']), 'ddpm_mnist.results'], package_dir={'ddpm_mnist.results': 'results'}, # the measured runs, which notebooks read
    package_data={'ddpm_mnist.results': ['*']}, include_package_data=True,
    python_requires='>=' + s['min_python'], install_requires=s['requirements'].split(),
    extras_require={name: s[f'{name}_requirements'].split() for name in ('notebooks', 'dev', 'inception', 'teach', 'bench')},
    entry_points={'console_scripts': s['console_scripts'].split(),
                  'nbdev': [f"{s['lib_name']}={s['lib_name']}._modidx:d"]},
    zip_safe=False,
)

"""The site in a browser: every page at the width of a desk and of a phone, light and dark, without a network.
SITE names a built site, else it is built here; SCREENSHOTS names a folder for pictures of what was seen."""
import functools, http.server, json, os, re, shutil, subprocess, sys, threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"katex": "0.16.11", "axe-core": "4.14.1"} # from npm
CDN = f"https://cdn.jsdelivr.net/npm/katex@{PACKAGES['katex']}/" # where the site takes KaTeX from
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
WIDTHS = {"desk": dict(width=1280, height=800), "phone": dict(width=390, height=844)}
VIEWS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]
NOT_OURS = {} # rule of axe: why a finding is not ours to mend


def skip(why):
    if os.environ.get("CI"): pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def packages():
    "The folder of npm's packages, fetched once and kept in the user's cache."
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ddpm_mnist_site"
    def have(name, version): return (p := folder / "node_modules" / name / "package.json").exists() and json.loads(p.read_text())["version"] == version
    if not all(have(*p) for p in PACKAGES.items()):
        if not shutil.which("npm"): skip("no npm on PATH: KaTeX and axe-core, with which the site is looked at, come from there")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
        done = subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts", *wanted], capture_output=True, text=True, timeout=300)
        if done.returncode: skip(f"npm could not install {' and '.join(wanted)}:\n{done.stderr[-1000:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def site():
    if "SITE" in os.environ:
        assert (Path(os.environ["SITE"]) / "index.html").exists(), f"SITE: got {os.environ['SITE']!r}, expected the folder of a built site; leave it out to have one built"
        return Path(os.environ["SITE"]).resolve()
    done = subprocess.run([sys.executable, ".ci/build_site.py"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.split()[-1])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope="module")
def address(site):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def real_name(path): return re.sub(r"^\d\d_", "", path) # smalldocs keeps the number, Quarto drops it: both are there, and the same page
def pages(site): return sorted(p for p in (f.relative_to(site).as_posix() for f in site.rglob("*.html")) if not any(site.glob(f"[0-9][0-9]_{p}")))


LOOK = r"""() => {
  const name = e => e.outerHTML.replace(/base64,[^"]*/, "…").slice(0, 160), all = selector => [...document.querySelectorAll(selector)];
  const scrolls = e => { while (e = e.parentElement) if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true; };
  const beyond = e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e) && !e.closest(".katex-mathml, svg *"); // cut off counts too, not only what widens the page
  const root = document.documentElement, texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), raw = [];
  while (texts.nextNode()) { const n = texts.currentNode;
    if (/\$[^\s$][^$]*\$|\\begin|\\frac|\\\(|\\\[|\{#\w+-|(^|\s)@(eq|fig|tbl)-|\]\(/.test(n.data) && !n.parentElement.closest("code, pre, script, style, .katex")) raw.push(n.data.trim().slice(0, 160)); }
  raw.push(...all("pre").flatMap(e => e.textContent.match(/.*(\]\(http|__main__\.|:NoneType=).*/g) || [])); // nor as it stands in code, nor names that only the page's maker knows
  return {
    overflow: [...root.scrollWidth > root.clientWidth ? [`${root.scrollWidth} > ${root.clientWidth}`] : [], ...all("body *").filter(beyond).map(name).slice(0, 3)],
    broken: [...document.images].filter(i => !i.naturalWidth).map(name), mute: [...document.images].filter(i => !i.alt.trim()).map(name),
    cut: innerWidth > 1000 ? all(".katex-display").filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.querySelector("annotation").textContent.slice(0, 160)) : [],
    raw, wrong: all(".katex-error").map(name), unrendered: all(".math").filter(e => !e.querySelector(".katex")).map(name), formulas: all(".katex").length,
    links: all("a[href]").map(a => a.href), ids: all("[id]").map(e => e.id),
  };
}"""
# in serious or critical findings; dark differs from light in its colours only
AXE = """dark => axe.run(document, {resultTypes: ["violations"], ...dark && {runOnly: ["color-contrast", "link-in-text-block"]}}).then(r => r.violations.filter(v => ["serious", "critical"].includes(v.impact))
  .map(v => [v.id, v.nodes.map(n => `${n.target} ${n.html.slice(0, 120)} ${n.any.concat(n.all, n.none).map(c => c.message)[0]}`)]))"""


@pytest.fixture(scope="module")
def open_view(browser, address, packages):
    "Opens an empty page of a width and a scheme, cut off from everything but the site, and KaTeX from its package."
    def answer(route):
        url = route.request.url
        if url.startswith(address): route.continue_()
        elif url.startswith(CDN): route.fulfill(path=packages / "katex" / url.removeprefix(CDN))
        elif url.startswith("https://fonts.googleapis.com/"): route.fulfill(body="", content_type="text/css") # the themes' fonts, which have substitutes
        elif url == BADGE: route.fulfill(body='<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>', content_type="image/svg+xml")
        else: route.abort()
    opened = []
    def new(width, scheme, **more):
        opened.append(browser.new_context(viewport=WIDTHS[width], color_scheme=scheme, **more))
        opened[-1].route("**/*", answer)
        return opened[-1].new_page()
    yield new
    for context in opened: context.close()


@pytest.fixture(scope="module")
def seen(site, address, packages, open_view):
    "What was seen of each page in each view: {(page, width, scheme): what LOOK and AXE say, and what the console said}."
    found, shots = {}, os.environ.get("SCREENSHOTS")
    axe = (packages / "axe-core" / "axe.min.js").read_text(encoding="utf8")
    for width, scheme in VIEWS:
        view, said = open_view(width, scheme), []
        view.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        view.on("pageerror", lambda e: said.append(str(e)))
        for path in pages(site):
            view.goto(address + path)
            view.evaluate("document.fonts.ready.then(() => true)")
            found[path, width, scheme] = view.evaluate(LOOK)
            if shots: view.screenshot(path=Path(shots) / f"{path.removesuffix('.html').replace('/', '_')}_{width}_{scheme}.png", full_page=True)
            view.evaluate(axe)
            found[path, width, scheme] |= {"axe": view.evaluate(AXE, scheme == "dark"), "console": said[:]}
            said.clear()
    return found


def every(seen, key): return [f"{path}, {width}, {scheme}: {what}" for (path, width, scheme), found in seen.items() for what in found[key]]
def none_of(findings): assert not findings, "\n".join([f"{len(findings)} findings", *findings[:30]])


def test_every_page_is_looked_at(site, seen):
    looked = {real_name(path) for path, *_ in seen}
    assert {"index.html", "scheduler.html", "exercises.html", "exercises/scheduler.html", "models/small.html", "models/small_long.html", "models/small_guide.html", "api.html", "teacher.html", "changelog.html", "contributing.html"} <= looked
    assert len(seen) == 4 * len(looked)


def test_nothing_is_wider_than_the_window(seen): none_of(every(seen, "overflow"))
def test_images_load(seen): none_of(every(seen, "broken"))
def test_images_have_a_text(seen): none_of(every({k: v for k, v in seen.items() if k[1:] == VIEWS[0]}, "mute"))
def test_no_errors_in_the_console(seen): none_of(every(seen, "console"))


def test_mathematics_is_rendered(seen):
    none_of([f"{key}: {finding}" for key in ("raw", "wrong", "unrendered") for finding in every(seen, key)])
    for path in ("00_scheduler.html", "03_sample.html", "exercises/scheduler.html"): assert all(seen[path, *view]["formulas"] > 5 for view in VIEWS), path


def test_equations_fit_a_desk(seen): none_of(every(seen, "cut"))


def test_links_within_the_site_resolve(site, seen, address):
    ids = {path: found["ids"] for (path, *view), found in seen.items() if tuple(view) == VIEWS[0]}
    numbered = {real_name(path): path for path in ids}
    own = "https://ddpm-mnist.github.io/ddpm_mnist/"
    def lost(link):
        url = urlsplit(link)
        path = unquote(url.path).lstrip("/") or "index.html"
        if not (site / path).exists(): return True
        return url.fragment and path.endswith(".html") and unquote(url.fragment) not in ids[numbered[real_name(path)]]
    none_of(sorted({f"{path}: {link}" for (path, *_), found in seen.items() for link in found["links"]
                    if (local := link.replace(own, address)).startswith(address) and lost(local)}))


@pytest.mark.parametrize("width, scheme", VIEWS)
def test_accessibility(seen, width, scheme):
    none_of([f"{path}: {rule}: {len(nodes)} times, {nodes[0]}" for (path, *view), found in seen.items() if view == [width, scheme] for rule, nodes in found["axe"] if rule not in NOT_OURS])


def test_the_first_screen(open_view, address):
    "What this is, digits forming from noise, and where to start, without scrolling."
    for width, size in WIDTHS.items():
        view = open_view(width, "light"); view.goto(address)
        for place in ("h1", "main img", "main a[href$='00_data.html']", "main a[href$='exercises.html']"):
            box = view.locator(place).first.bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] <= size["height"], (width, place, box)
        frames = [view.locator("main img").first.screenshot()]
        view.wait_for_timeout(2000)
        assert view.locator("main img").first.screenshot() != frames[0], "the digits do not form"
    view = open_view("desk", "light", reduced_motion="reduce"); view.goto(address)
    assert view.evaluate("document.querySelector('main img').currentSrc").endswith("formed.png")


def test_the_way_through_the_lessons(open_view, address):
    "From the start by the link to the next page, and back."
    view = open_view("desk", "light"); view.goto(address)
    way = []
    while (link := view.locator(".nav-page-next a")).count() and len(way) < 50:
        with view.expect_navigation(): link.click()
        way.append(urlsplit(view.url).path[1:])
    lessons = sorted(p.stem for p in (ROOT / "nbs").glob("0[0-4]_*.ipynb"))
    assert [name for w in way if (name := w.removesuffix(".html")) in lessons] == lessons, way
    assert "exercises/fid.html" in way and way[-1] == "teacher.html"
    with view.expect_navigation(): view.locator(".nav-page-previous a").click()
    assert urlsplit(view.url).path[1:] == way[-2]


def test_navigation_on_a_phone(open_view, address):
    view = open_view("phone", "light"); view.goto(address + "00_scheduler.html")
    lesson = view.locator("#quarto-sidebar a", has_text="Sampling").first
    assert not lesson.is_visible() or lesson.bounding_box()["x"] < 0
    view.locator(".quarto-btn-toggle").click()
    with view.expect_navigation(): lesson.click()
    assert view.url.endswith("03_sample.html")
    view.locator(".navbar-toggler").click()
    with view.expect_navigation(): view.locator(".navbar a", has_text="For teachers").click()
    assert view.url.endswith("teacher.html")


def test_a_figure_opens_at_its_own_size(open_view, address):
    view = open_view("phone", "light"); view.goto(address + "05_speed.html")
    figure, whole = view.locator("main .cell-output-display img").first, view.locator("dialog[open] img")
    own = figure.evaluate("i => i.naturalWidth")
    assert figure.bounding_box()["width"] <= WIDTHS["phone"]["width"] < own
    figure.click()
    assert whole.bounding_box()["width"] == own and view.evaluate("document.querySelector('dialog').scrollWidth") == own
    if shots := os.environ.get("SCREENSHOTS"): view.screenshot(path=Path(shots) / "figure_opened_phone.png")
    whole.click()
    view.locator("dialog").wait_for(state="detached") # an event later


def test_search_finds_a_function(open_view, address):
    view = open_view("desk", "light"); view.goto(address)
    view.locator("#quarto-search input").fill("forward_diffusion")
    view.locator("a.search-result").first.wait_for()
    assert any("scheduler" in a.get_attribute("href") for a in view.locator("a.search-result").all())


def test_light_and_dark_by_hand(open_view, address):
    view = open_view("desk", "light"); view.goto(address)
    paper = lambda: view.evaluate("getComputedStyle(document.body).backgroundColor")
    light = paper()
    view.locator(".quarto-color-scheme-toggle").click(); view.wait_for_timeout(300)
    dark = paper()
    view.goto(address + "00_scheduler.html")
    assert dark != light and paper() == dark


def outputs(notebook): # of the cells that run when the site is built, without the links that nbdev adds
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    said = ["".join(o["data"]["text/markdown"]) for c in cells if c["cell_type"] == "code" for o in c["outputs"] if "text/markdown" in o.get("data", {})]
    return [re.sub(r"\[(`[^`]+`)\]\(https://ddpm-mnist[^)]+\)", r"\1", text) for text in said]


@pytest.mark.parametrize("name", ["api", "exercises", "teacher"])
def test_what_is_made_with_the_site_is_what_is_committed(site, name):
    "If this fails: run the notebook and save it."
    assert outputs(ROOT / "nbs" / f"{name}.ipynb") == outputs(site.parent / f"{name}.ipynb"), f"execute nbs/{name}.ipynb again, and commit it"

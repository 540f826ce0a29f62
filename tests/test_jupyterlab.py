"Every notebook and every widget in a real JupyterLab, in a real browser; what is seen is kept in the folder $SCREENSHOTS, if that is set."
import base64, math, os, re, secrets, shutil, signal, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("jupyterlab"); pytest.importorskip("playwright")
from torchvision.utils import make_grid

from ddpm_mnist.data import mnist_tensor, to_unit
from ddpm_mnist.sample import ddim_step, dpm_solver_step, image_noise, reverse_process
from ddpm_mnist.timestep_study import draw
from ddpm_mnist.train import load_model
from ddpm_mnist.widgets import panel, player_axes, puzzle_axes, red_dot, schedule_axes

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("*.ipynb") if not p.name.startswith(("_", "08_widgets"))) # that one is run for the widgets, below
EXERCISES = sorted(f"exercises/{p.name}" for p in (ROOT / "nbs" / "exercises").glob("*.ipynb"))
MINUTE = 60_000 # milliseconds, as Playwright counts


@pytest.fixture(scope="module")
def server(tmp_path_factory): # address and token of a JupyterLab over a copy of the repository
    home = tmp_path_factory.mktemp("jupyter"); copy = home / "course"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "_proc", "_docs", "build", "dist", "samples", "__pycache__"))
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    folders = {k: str(home / k.lower()) for k in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")}
    env = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "IN_TEST")} | folders
    quiet = home / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"; quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}') # else it asks, over the notebook
    with open(home / "log", "w") as log:
        p = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={copy}",
                              f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"], env=env, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try: urllib.request.urlopen(f"{url}/api?token={token}", timeout=5).close(); break
            except OSError: assert p.poll() is None, (home / "log").read_text(); time.sleep(0.2)
        else: pytest.fail(f"no JupyterLab after two minutes: {(home / 'log').read_text()}")
        yield url, token
    finally: # it ends its kernels when it is asked to end; a kernel whose server is gone ends itself
        p.send_signal(signal.SIGTERM)
        try: p.wait(60)
        except subprocess.TimeoutExpired: p.kill(); p.wait()


@contextmanager
def opened(browser, server, path): # a page with the notebook; its kernel is shut down afterwards
    page = browser.new_page(viewport=dict(width=1280, height=900)); page.set_default_timeout(2 * MINUTE)
    try:
        page.goto(f"{server[0]}/lab/tree/nbs/{path}?token={server[1]}&reset")
        page.wait_for_function("path => { const w = window.jupyterapp?.shell.currentWidget; return w?.context?.path === path && w.context.isReady && w.sessionContext.session?.kernel?.status === 'idle' }", arg=f"nbs/{path}")
        yield page
    except BaseException: keep(page, f"failed_{path.removesuffix('.ipynb').replace('/', '_')}"); raise
    finally:
        page.evaluate("window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
        page.close()


def run_all(page): # the cells, as the notebook holds them then
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells').finally(() => window.ran = true) }")
    page.wait_for_function("window.ran && jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=8 * MINUTE, polling=200)
    return page.evaluate("jupyterapp.shell.currentWidget.context.model.toJSON().cells")


def go_to(page, cell): page.evaluate("i => { const n = jupyterapp.shell.currentWidget.content; n.activeCellIndex = i; return n.scrollToItem(i, 'start') }", cell)


def keep(page, name):
    if folder := os.environ.get("SCREENSHOTS"): Path(folder).mkdir(parents=True, exist_ok=True); page.screenshot(path=f"{folder}/{name}.png")


def errors(cells): return [f"{o['ename']}: {o['evalue']}" for c in cells for o in c.get("outputs", []) if o["output_type"] == "error"]


def check_all_ran(cells):
    assert not errors(cells)
    assert all(c["execution_count"] for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip())


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs_to_its_end(browser, server, path):
    with opened(browser, server, path) as page:
        cells = run_all(page); go_to(page, len(cells) - 1); keep(page, path.removesuffix(".ipynb"))
    check_all_ran(cells)


@pytest.mark.parametrize("path", EXERCISES)
def test_untouched_exercise_says_what_is_missing(browser, server, path):
    with opened(browser, server, path) as page:
        cells = run_all(page); keep(page, path.removesuffix(".ipynb").replace("/", "_"))
    assert errors(cells) == ["Failed: nothing is written here yet, or the line `raise NotImplementedError` still stands below what you wrote"] # the first check; the rest is not run


@pytest.fixture(scope="module")
def widgets(browser, server): # the page with the widgets, all cells run
    with opened(browser, server, "08_widgets.ipynb") as page:
        page.cells = run_all(page); go_to(page, len(page.cells) - 1); keep(page, "08_widgets"); check_all_ran(page.cells)
        yield page


class Widget: # one of them, as somebody with a keyboard sees it
    def __init__(self, page, name):
        self.page = page
        i = next(i for i, c in enumerate(page.cells) if "".join(c["source"]).strip() == f"{name}()"); go_to(page, i)
        self.out = page.locator(f".jp-Notebook [data-windowed-list-index='{i}'] .jp-OutputArea"); self.out.locator("img.widget-image").wait_for()

    def press(self, control, *keys): # a control by its description
        row = self.out.locator(".widget-inline-hbox", has=self.page.get_by_text(control, exact=True))
        row.locator(".noUi-handle, input").focus()
        for k in keys: self.page.keyboard.press(k)

    def choose(self, button): self.out.get_by_role("button", name=button, exact=True).focus(); self.page.keyboard.press("Enter")

    def says(self, words): # waits until it does
        self.out.locator(".widget-html", has_text=words).wait_for()

    def picture(self, words): # the PNG that the page shows, when its name has these words
        self.says(words); img = self.out.get_by_role("img", name=words); img.wait_for()
        self.page.wait_for_function("img => img.complete && img.naturalWidth > 0", arg=img.element_handle())
        return base64.b64decode(img.evaluate("async img => { const b = new Uint8Array(await (await fetch(img.src)).arrayBuffer()); return btoa(Array.from(b, c => String.fromCharCode(c)).join('')) }"))


def pixels(x): return to_unit(x).permute(1, 2, 0).numpy() # (3, H, W) to (H, W, 3)
def far(a, b): return abs(a - b).mean()


def test_explorer_noises_the_digit_as_its_schedule_says(widgets):
    w, axes = Widget(widgets, "schedule_explorer"), schedule_axes()
    def check(t, T, digit, end=0.02, cosine=False):
        u = lambda i: math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2
        ab = u(t + 1) / u(0) if cosine else math.exp(sum(math.log1p(-(1e-4 + (end - 1e-4) * i / (T - 1))) for i in range(t + 1)))
        png = w.picture(re.compile(rf"t = {t} of {T}: ᾱ = {f'{ab:.4g}'[:-1]}.*The {digit} has")) # but for the last digit
        for i, y, tol in ((0, ab, 0.01), (1, math.log(ab / (1 - ab)), 0.2)): assert (abs(red_dot(png, axes, i) - [t, y]) < [4, tol]).all()
        x, labels = mnist_tensor(train=False); x0, noise = x[labels == digit][0], next(image_noise(0, [0]))[0]
        shown = panel(png, axes, 2)
        assert far(shown, pixels(math.sqrt(ab) * x0 + math.sqrt(1 - ab) * noise)) < 0.005
        assert far(shown, pixels(x[labels == (digit + 1) % 10][0] * math.sqrt(ab) + math.sqrt(1 - ab) * noise)) > 0.02
    check(300, 800, 3)
    w.press("step t", *["ArrowLeft"] * 200); check(100, 800, 3); keep(widgets, "explorer_t_100")
    w.press("digit", "End"); check(100, 800, 9)
    w.press("steps T", *["ArrowLeft"] * 40); check(100, 400, 9)
    w.press("last β", "ArrowLeft"); check(100, 400, 9, end=0.01)
    w.press("first β", *["ArrowRight"] * 7); w.says("beta_start: got 0.02, more than beta_end, 0.01"); keep(widgets, "explorer_refuses")
    w.choose("cosine"); check(100, 400, 9, cosine=True); keep(widgets, "explorer_cosine")


def test_player_walks_through_the_states(widgets):
    w, (net, trained) = Widget(widgets, "denoising_player"), load_model("small"); axes = player_axes(trained)
    def states(seed, calls, step=ddim_step): return [s[1:] for s in reverse_process(net, trained.respace(calls), image_noise(seed, [0]), step)]
    def check(words, expected, other):
        png = w.picture(words)
        for i in (0, 1): assert far(panel(png, axes, i), pixels(expected[i][0])) < 0.01 < 0.03 < far(panel(png, axes, i), pixels(other[i][0]))
    zero, one = states(0, 20), states(1, 20)
    check("After all 20 calls", zero[20], one[20])
    w.press("calls done", "Home", *["ArrowRight"] * 8); check("After 8 of 20", zero[8], one[8]); keep(widgets, "player_8_of_20")
    w.press("calls done", "Home"); check("After 0 of 20", zero[0], one[0])
    w.press("seed", "ArrowUp"); check("Seed 1, ddim. After all 20 calls", one[20], zero[20])
    w.choose("dpm_solver"); w.press("network calls", "ArrowLeft"); check("Seed 1, dpm_solver. After all 10 calls", states(1, 10, dpm_solver_step())[10], zero[20])
    w.choose("ddim"); check("Seed 1, ddim. After all 10 calls", states(1, 10)[10], zero[20])
    w.press("calls done", "Home"); check("After 0 of 10", states(1, 10)[0], zero[0])
    play = w.out.locator(".widget-play button").first; play.focus(); widgets.keyboard.press("Enter")
    w.says("After all 10 calls"); play.focus(); widgets.keyboard.press("Enter"); keep(widgets, "player_played")


def test_puzzle_draws_in_the_chosen_way(widgets):
    w, (net, trained) = Widget(widgets, "steps_puzzle"), load_model("small"); axes = puzzle_axes(trained)
    def check(way, other, start): # in 20 steps
        png = w.picture(re.compile(f"After 20 of 20 calls.*share of signal ᾱ′ = {start:.3f}"))
        digits = lambda how: pixels(make_grid(draw(net, trained, how, 20, 6, 0)[0] * 2 - 1, nrow=3, padding=0))
        assert far(panel(png, axes, 2, 56, 84), digits(way)) < 0.01 < 0.03 < far(panel(png, axes, 2, 56, 84), digits(other))
    w.press("steps T′", "ArrowLeft", "ArrowLeft"); check("rebuilt", "respaced", math.exp(sum(math.log1p(-(1e-4 + 0.0199 * i / 19)) for i in range(20)))); keep(widgets, "puzzle_rebuilt")
    w.choose("respaced"); check("respaced", "rebuilt", trained.alpha_bars[-1]); keep(widgets, "puzzle_respaced")
    w.press("steps T′", "End"); w.says("800 steps cannot be respaced to T′ = 1300: steps: got 1300, expected 1 to 800"); keep(widgets, "puzzle_refuses")


def test_widgets_fit_a_narrow_window(widgets):
    for name in ("schedule_explorer", "denoising_player", "steps_puzzle"):
        for width in (1280, 800):
            widgets.set_viewport_size(dict(width=width, height=900)); w = Widget(widgets, name); keep(widgets, f"{name}_{width}")
            room = w.out.evaluate("e => e.clientWidth")
            for e in w.out.locator("img, .widget-inline-hbox").all(): assert e.bounding_box()["width"] <= room
            for label in w.out.locator(".widget-label, .widget-toggle-button").all(): assert label.evaluate("e => e.scrollWidth <= e.clientWidth"), label.text_content()

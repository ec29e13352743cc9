"""The built site in a real browser: ``python -m docs.checks.site_check docs/_build/html --out DIR``.

Not a test that pytest collects: it needs Chromium, and fails where there is none.
"""

import argparse
import functools
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# What the page is laid out in; code, tables and formulas may scroll by themselves.
WIDER = """["html", "body", ".page", ".main", ".content"].map(name => document.querySelector(name))
    .filter(part => part && part.scrollWidth > part.clientWidth).map(part => `${part.tagName} ${part.scrollWidth}`)"""
PICTURED = ("index.html", "concepts.html", "howto/audio_encoder.html", "api/components.html")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description="look at the built site in Chromium")
    parser.add_argument("site", type=Path, help="folder of the built pages")
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    if options.browser is None:
        print("browser: must be Chromium's file, found none on the path", file=sys.stderr)
        return 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(options.site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(path.relative_to(options.site).as_posix() for path in options.site.rglob("*.html"))
    pages = [page for page in pages if not page.startswith(("_static/", "_modules/"))]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=list(FLAGS))
        faults = look(browser, f"http://127.0.0.1:{server.server_port}", pages, options.out)
        browser.close()
    server.shutdown()
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"site check: {'passed' if not faults else f'{len(faults)} faults'}, {len(pages)} pages")
    return 1 if faults else 0


def look(browser: Browser, address: str, pages: list[str], out: Path | None) -> list[str]:
    """What is wrong with the pages, in each size and in the dark."""
    faults: list[str] = []
    for size in SIZES:
        for scheme in ("light", "dark"):
            faults += visit(browser, address, size, scheme, pages if scheme == "light" else list(PICTURED), out)
    return faults


def visit(browser: Browser, address: str, size: str, scheme: str, pages: list[str], out: Path | None) -> list[str]:
    """What is wrong with some pages in one size and light."""
    faults: list[str] = []
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.on("console", lambda said: note(faults, page.url, said.type, said.text))
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("request", lambda request: elsewhere(faults, address, request.url))
    for name in pages:
        page.goto(f"{address}/{name}")
        if wide := page.evaluate(WIDER):
            faults.append(f"{name}: must fit its {width} pixels, found {wide}")
        if broken := page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"):
            faults.append(f"{name}: pictures that are not there: {broken}")
        if out is not None and name in PICTURED:
            out.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=out / f"{Path(name).stem}_{size}_{scheme}.png")
    if (size, scheme) == ("desktop", "light"):
        copies_code(page, address)
        switches_to_the_dark(page, address)
        finds(page, address, "FrameSynchroniser", "api/components.html")
    elif (size, scheme) == ("phone", "light"):
        opens_the_menu(page, address)
    context.close()
    return [f"{size}, {scheme}: {fault}" for fault in faults]


def note(faults: list[str], url: str, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        faults.append(f"{url}: {text}")


def elsewhere(faults: list[str], address: str, url: str) -> None:
    if urlsplit(url).scheme.startswith("http") and not url.startswith(address):
        faults.append(f"must fetch nothing from elsewhere, found {url}")


def copies_code(page: Page, address: str) -> None:
    """The button gives code without prompts and without what it prints."""
    page.goto(f"{address}/howto/loss_only.html")
    block = page.locator("div.highlight", has_text="import torch").first
    block.hover()
    block.locator("button.copybtn").click()
    page.wait_for_timeout(300)
    copied = page.evaluate("navigator.clipboard.readText()")
    if not copied.startswith("import torch\n") or ">>>" in copied or "torch.Size" in copied:
        raise SystemExit(f"copy: must be code alone, found {copied!r}")


def switches_to_the_dark(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html")
    shade = "getComputedStyle(document.body).backgroundColor"
    before, seen = page.evaluate(shade), set()
    for _ in range(3):  # by the system, light, dark
        page.locator(".content-icon-container .theme-toggle").click()
        seen.add(page.evaluate(shade))
    if len(seen | {before}) < 2:
        raise SystemExit(f"dark mode: must change the page, found {before} always")


def finds(page: Page, address: str, text: str, wanted: str) -> None:
    page.goto(f"{address}/search.html?q={text}")
    results = page.locator("#search-results ul.search li a")
    expect(results.first).to_be_visible(timeout=30_000)
    found = [link.get_attribute("href") or "" for link in results.all()]
    if not any(wanted in link for link in found):
        raise SystemExit(f"search: must find {wanted} for {text!r}, found {found}")


def opens_the_menu(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html")
    page.locator(".mobile-header label.nav-overlay-icon, .mobile-header .nav-overlay-icon").first.click()
    expect(page.locator(".sidebar-tree a", has_text="How-to").first).to_be_in_viewport(timeout=5_000)


if __name__ == "__main__":
    sys.exit(main())

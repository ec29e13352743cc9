"""The page in a real browser: ``python -m examples.favor.checks.browser_check --out DIR``.

Not a test that pytest collects: it needs Chromium, and fails where there is none.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from playwright.sync_api import Page, expect, sync_playwright

from avfusion.media import write_video

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a camera that shows a test picture
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def main() -> int:
    parser = argparse.ArgumentParser(description="ask the page about a clip, in Chromium")
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    if options.browser is None:
        print("browser: must be Chromium's file, found none on the path", file=sys.stderr)
        return 2
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "examples.favor", "app", "--model", "tiny", "--max-new-tokens", "40"]
    server = subprocess.Popen([*command, "--port", str(port)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            check(f"http://127.0.0.1:{port}", server, Path(folder), options.browser, options.out)
    finally:
        server.terminate()
        server.wait(timeout=60)
    print("browser check: passed")
    return 0


def check(address: str, server: "subprocess.Popen[bytes]", folder: Path, browser: str, out: Path | None) -> None:
    wait_for(address, server)
    clip = folder / "clip.mp4"
    ramp = torch.linspace(0, 1, 64)
    shades = torch.linspace(0, 1, 24)[:, None, None, None]
    pictures = torch.stack([ramp.expand(48, 64), ramp.flip(0).expand(48, 64), 0.5 + 0 * ramp.expand(48, 64)])
    sound = 0.3 * torch.sin(torch.arange(96_000) * 0.2) * torch.linspace(0, 1, 96_000)
    write_video(clip, (pictures * shades).clamp(0, 1), frame_rate=4.0, samples=sound)
    silent = folder / "broken.mp4"
    silent.write_bytes(clip.read_bytes()[:700])
    elsewhere: set[str] = set()
    with sync_playwright() as playwright:
        for name, (width, height) in SIZES.items():
            context = playwright.chromium.launch_persistent_context(
                folder / name,
                executable_path=browser,
                args=list(FLAGS),
                viewport={"width": width, "height": height},
            )
            page = context.new_page()
            page.on("request", lambda request: elsewhere.add(urlsplit(request.url).netloc))
            page.goto(address)
            ask_about(page, clip)
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                raise SystemExit(f"{name}: the page must fit its {width} pixels, found {wide}")
            if out is not None:
                page.screenshot(path=out / f"{name}.png", full_page=True)
            if name == "desktop":
                ask_about_nothing(page)
            watch_live(page, clip)
            if out is not None:
                page.screenshot(path=out / f"{name}_live.png", full_page=True)
            if name == "desktop":
                watch_camera(page)
                if out is not None:
                    page.screenshot(path=out / f"{name}_camera.png", full_page=True)
            context.close()
    others = {place for place in elsewhere if place and place != urlsplit(address).netloc}
    if others:
        raise SystemExit(f"the page must fetch nothing from elsewhere, found {sorted(others)}")


def ask_about(page: Page, clip: Path) -> None:
    """Uploads a clip, asks twice, and waits for answers and timeline."""
    page.locator("#video input[type=file]").first.set_input_files(clip)
    expect(page.locator("#video video")).to_be_visible(timeout=60_000)
    for number, question in enumerate(("What do you see?", "And what do you hear?"), start=1):
        box = page.locator("#question textarea")
        box.fill(question)
        box.press("Enter")
        expect(page.locator("#dialogue .user.message")).to_have_count(number, timeout=60_000)
        expect(page.locator("#dialogue .bot.message")).to_have_count(number, timeout=60_000)
        expect(page.locator("#timeline img")).to_be_visible(timeout=60_000)
    page.wait_for_timeout(1500)  # the last of the answer, and animations


def ask_about_nothing(page: Page) -> None:
    page.locator("#question textarea").fill(" ")
    page.locator("#ask").click()
    expect(page.locator("#problem")).to_have_text("Ask something first.", timeout=30_000)


def watch_live(page: Page, clip: Path) -> None:
    """Plays a clip, asks while it is watched, and waits for its end."""
    page.get_by_role("tab", name="Live").click()
    page.locator("#live-file input[type=file]").first.set_input_files(clip)
    expect(page.locator("#live-file video")).to_be_visible(timeout=60_000)
    page.locator("#live-start").click()
    expect(page.locator("#live-status")).to_contain_text("watching", timeout=60_000)
    ask_live(page, "What do you see?", 1)
    expect(page.locator("#live-status")).to_contain_text("ended", timeout=60_000)
    ask_live(page, "What did you hear?", 2)


def watch_camera(page: Page) -> None:
    """Lets the page see the browser's camera and hear its microphone."""
    page.get_by_label("Camera", exact=True).check()
    page.locator("#live-start").click()
    page.locator("#live-camera").get_by_text("Click to Access Webcam").click()
    page.locator("#live-camera").get_by_text("Record").click()
    expect(page.locator("#live-status")).to_contain_text("watching", timeout=60_000)
    expect(page.locator("#live-status")).to_contain_text("window", timeout=60_000)
    ask_live(page, "What is that?", 1)
    page.locator("#live-stop").click()
    expect(page.locator("#live-status")).to_contain_text("ended", timeout=60_000)


def ask_live(page: Page, question: str, number: int) -> None:
    box = page.locator("#live-question textarea")
    box.fill(question)
    box.press("Enter")
    expect(page.locator("#live-dialogue .user.message")).to_have_count(number, timeout=60_000)
    expect(page.locator("#live-dialogue .bot.message")).to_have_count(number, timeout=60_000)


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the page's server ended with {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the page's server did not answer")


if __name__ == "__main__":
    sys.exit(main())

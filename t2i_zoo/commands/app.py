"""``t2i-zoo app``: a page in the browser to draw with; it works without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from t2i_zoo.commands.sample import pick_device
from t2i_zoo.commands.studio import LONGEST, MOST, Studio
from t2i_zoo.errors import T2IError
from t2i_zoo.hub import is_address
from t2i_zoo.paths import shipped_generators
from t2i_zoo.version import __version__

EXAMPLE = "this flower has pink petals and a yellow center"
OTHER = "a white flower with rounded petals"
_WAITING = 20  # requests in the queue; a further one is told to come back later
_CSS = """
.gradio-container {width: 100%; max-width: 1100px !important; margin: auto}
.grid-wrap {min-height: 9rem !important}
.grid-container {grid-template: auto / repeat(var(--grid-cols), minmax(0, 1fr)) !important;
    grid-auto-rows: auto !important}
"""


def app(
    *files: str,
    runs: str = "runs",
    stream: str | None = None,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = False,
) -> None:
    """Draw in the browser: with shipped generators, your runs and exported files, side by side.

    Args:
        files: Exported files, checkpoints, folders of runs or addresses of the hub to offer beside the shipped
            generators.
        runs: Folder of runs; all of its GANs are offered.
        stream: Run of the STREAM that describes images again; by default the one that a MirrorGAN was trained with.
        device: Device such as cpu, cuda, cuda:1 or mps; auto uses the GPU if there is one.
        host: Address to listen on; 0.0.0.0 lets other machines in.
        port: Port to listen on; 0 takes a free one.
        open_browser: Open the page in a browser.

    Raises:
        T2IError: for a file that is not there, without gradio, or if the port is taken.
    """
    if not 0 <= port < 2**16:
        raise T2IError(f"found --port {port}, expected 0 to 65535")
    own = [file for file in files if is_address(file) or Path(file).expanduser().exists()]
    if missing := [file for file in files if file not in own and file not in shipped_generators()]:
        raise T2IError(f"found no file or run {missing[0]}: correct its name")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: it would call home
    try:
        import gradio as gr
    except ImportError:
        raise T2IError('the page needs gradio: pip install "t2i-zoo[app]"') from None
    studio = Studio(Path(runs), own, pick_device(device), stream)
    page = build_page(studio)
    Thread(target=studio.warm, daemon=True).start()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # no web fonts
    try:
        page.queue(max_size=_WAITING, default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port or _free_port(host),
            inbrowser=open_browser,
            quiet=True,
            footer_links=[],
            theme=theme,
            css=_CSS,
            ssr_mode=False,
            share=False,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise T2IError(f"found no way to listen on {host}:{port} ({error}): choose another --port or --host") from None
    print(f"open {page.local_url}    (Ctrl+C ends it)", flush=True)
    page.block_thread()


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as found:
        found.bind((host, 0))
        port: int = found.getsockname()[1]
        return port


def build_page(studio: Studio) -> Any:
    """The page as Gradio blocks; mistakes are a sentence in the field of notes, which shows text and no HTML."""
    import gradio as gr

    names = list(studio.generators())

    def guarded(draw: Callable[..., tuple[Any, ...]], outputs: int) -> Callable[..., tuple[Any, ...]]:
        """Turn mistakes into the note, and leave the images as they are."""

        def call(*values: Any) -> tuple[Any, ...]:
            try:
                return draw(*values)
            except T2IError as error:
                return (*[gr.skip()] * (outputs - 1), f"error: {error}")

        return call

    def draw(chosen: list[str], caption: str, count: float, seed: float, cut: float, again: bool) -> tuple[Any, ...]:
        images, notes = studio.draw(chosen, caption, int(count), int(seed or 0), float(cut), again)
        return gr.Gallery(images, columns=int(count)), notes

    def between(name: str, first: str, second: str, steps: float, seed: float) -> tuple[Any, ...]:
        frames, film = studio.between(name, (first, second), int(steps), int(seed or 0))
        strip = gr.Gallery(frames, columns=len(frames))
        return strip, frames, gr.Slider(1, len(frames), value=1), frames[0], film, ""

    def step(at: float, frames: list[Path]) -> Path | None:
        return frames[int(at) - 1] if frames else None

    def attention(name: str, caption: str, seed: float) -> tuple[Any, ...]:
        return studio.attention(name, caption, int(seed or 0)), ""

    def refreshed(*chosen: Any) -> list[Any]:
        found = list(studio.generators())
        return [gr.Dropdown(found, value=each or found[:1] or None) for each in chosen]

    with gr.Blocks(title="t2i-zoo", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# t2i-zoo\nText-to-image GANs on this machine. Version {__version__}.")
        with gr.Tab("Draw"):
            models = gr.Dropdown(names, value=names[:1], multiselect=True, label="Generators, side by side")
            caption = gr.Textbox(EXAMPLE, label="Caption", max_length=LONGEST, elem_id="caption")
            notes = gr.Textbox(label="Notes on its words", interactive=False, elem_id="notes")
            with gr.Row():
                count = gr.Slider(1, MOST, value=8, step=1, label="Images")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                cut = gr.Slider(0.1, 1, value=1, step=0.01, label="Truncation", info="smaller: less varied")
                again = gr.Checkbox(False, label="Describe again", info="by a STREAM")
            button = gr.Button("Draw", variant="primary", elem_id="draw")
            gallery = gr.Gallery(
                label="Images",
                show_label=False,
                columns=8,
                object_fit="contain",
                height="auto",
                format="png",
                elem_id="images",
                buttons=["download", "download_all", "fullscreen"],
            )
            gr.Markdown("Each PNG file holds its caption, model, seed and version.")
            given = [models, caption, count, seed, cut, again]
            for event in (button.click, caption.submit):
                event(guarded(draw, 2), given, [gallery, notes], api_visibility="private")
        with gr.Tab("Between two captions"):
            one = gr.Dropdown(names, value=names[0] if names else None, label="Generator")
            with gr.Row():
                ends = [
                    gr.Textbox(text, label=label, max_length=LONGEST)
                    for label, text in (("From", EXAMPLE), ("To", OTHER))
                ]
            with gr.Row():
                steps = gr.Slider(3, MOST, value=8, step=1, label="Steps")
                path_seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            go = gr.Button("Draw the path", variant="primary", elem_id="go")
            path_notes = gr.Textbox(label="Notes", interactive=False)
            strip = gr.Gallery(label="Path", show_label=False, columns=8, format="png", height="auto")
            place = gr.Slider(1, 8, value=1, step=1, label="Along the path")
            with gr.Row():
                shown = gr.Image(label="Image", type="filepath", height=300, elem_id="shown")
                film = gr.Image(label="GIF", type="filepath", height=300, elem_id="film")
            frames = gr.State([])
            outputs = [strip, frames, place, shown, film, path_notes]
            go.click(guarded(between, 6), [one, *ends, steps, path_seed], outputs, api_visibility="private")
            place.change(step, [place, frames], shown, queue=False, api_visibility="private")
        with gr.Tab("Attention to words"):
            attends = gr.Dropdown(names, value=names[0] if names else None, label="AttnGAN, MirrorGAN or DM-GAN")
            words = gr.Textbox(EXAMPLE, label="Caption", max_length=LONGEST)
            word_seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            look = gr.Button("Draw", variant="primary", elem_id="look")
            word_notes = gr.Textbox(label="Notes", interactive=False)
            seen = gr.AnnotatedImage(label="Point at a word to see where it was looked for", height=420, elem_id="seen")
            look.click(guarded(attention, 2), [attends, words, word_seed], [seen, word_notes], api_visibility="private")
        lists: Sequence[Any] = [models, one, attends]
        page.load(refreshed, lists, lists, api_visibility="private")  # runs may have come since
    return page

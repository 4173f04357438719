"""HTML as a component of the page, in the page's own style."""

import gradio as gr


def add_html(value: str = "", **options) -> gr.HTML:
    """Adds HTML to the page; Gradio's own style for texts would change its buttons.

    Args:
        value: what `serving.demo_page.markup` made.
        **options: of `gr.HTML`.
    """
    return gr.HTML(value, apply_default_css=False, **options)

"""How the page looks: a theme of the system's own fonts, and a style sheet."""

import pathlib

import gradio as gr

STYLE = pathlib.Path(__file__).with_name("style.css")

# The page may load nothing from elsewhere, whatever a version of Gradio would like to.
CONTENT_POLICY = (
    "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; "
    "connect-src 'self' data: blob:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


def theme() -> gr.themes.Base:
    """Returns the theme; other ones ask for fonts."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


class ContentPolicy:
    """ASGI middleware that adds `CONTENT_POLICY` to every answer."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        """Answers a request."""

        async def with_policy(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self._app(scope, receive, with_policy)

"""Response maps drawn over a photo."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from biam_tf.contact_sheet import overlay_heat

_LIGHT, _DARK = "#ffffff", "#101418"
# Keeps enough color to recognize the photo, and little enough to see the heat.
_COLOR = 0.45


def deciding_regions(response_map: np.ndarray, pooled: int) -> np.ndarray:
    """Returns (h, w) bool: the `pooled` strongest regions, whose mean response is the score."""
    strongest = np.argsort(-response_map, axis=None, kind="stable")[:pooled]
    chosen = np.zeros(response_map.size, bool)
    chosen[strongest] = True
    return chosen.reshape(response_map.shape)


def draw_evidence(
    picture: Image.Image, response_map: np.ndarray, pooled: int | None
) -> Image.Image:
    """Returns the photo, in paler colors, under a response map with its deciding regions outlined.

    Args:
        picture: RGB.
        response_map: (h, w) of one class.
        pooled: k, number of deciding regions; None to outline nothing.
    """
    drawn = overlay_heat(picture, response_map, _COLOR)
    if pooled is not None:
        outline_regions(drawn, deciding_regions(response_map, pooled))
    return drawn


def outline_regions(picture: Image.Image, regions: np.ndarray, width: int = 3) -> None:
    """Draws a white outline with a dark edge around regions, in place.

    Args:
        picture: RGB.
        regions: (h, w) bool; the regions that are True are outlined.
        width: of the white line, in pixels.
    """
    h, w = regions.shape
    xs = np.linspace(0, picture.width, w + 1)
    ys = np.linspace(0, picture.height, h + 1)
    padded = np.pad(regions, 1)
    # An edge between two cells is part of the outline if just one of them is a region.
    lines = []
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        lines.append((xs[column], ys[row], xs[column + 1], ys[row]))
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        lines.append((xs[column], ys[row], xs[column], ys[row + 1]))
    draw = ImageDraw.Draw(picture)
    for color, extra in ((_DARK, 2), (_LIGHT, 0)):
        for x0, y0, x1, y1 in lines:
            half = (width + extra) / 2
            draw.rectangle((x0 - half, y0 - half, x1 + half, y1 + half), fill=color)


def as_data_uri(picture: Image.Image) -> str:
    """Returns a picture as a `data:` address that holds it as JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

"""A picture of photos with their best tags and the regions where each tag was found."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from biam_tf.files import replacing
from biam_tf.photo_tags import Tag, best_tags, row_of

# Also those of pages (training/tables/palette.css); texts have a contrast of at least 4.5.
PAPER, CARD, EDGE = "#f4f5f7", "#ffffff", "#e1e5ea"
INK, QUIET, TRACK = "#1c2530", "#5d6977", "#e6e9ee"
RIGHT, WRONG, UNKNOWN, SEEN, UNSEEN = "#1a7343", "#bd3a29", "#5d6977", "#2f62d0", "#b04d08"
# Dark to light in even steps of lightness, so that it also reads in grayscale.
HEAT = np.array([(13, 8, 70), (120, 20, 120), (215, 60, 80), (252, 150, 35), (252, 245, 150)])

MARGIN, GAP, PADDING = 28, 20, 18
PHOTO, TAGS_WIDTH, ROW, CAPTION = 232, 350, 32, 24
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Three response maps are as wide as a photo and its tags.
MAP = (PHOTO + TAGS_WIDTH - PADDING) // 3


def draw_contact_sheet(
    path: str | os.PathLike,
    photos: Sequence[np.ndarray],
    names: Sequence[str],
    groups: Sequence[str],
    scores: ArrayLike,
    **options: Any,
) -> None:
    """Writes the picture of `make_contact_sheet` to a PNG file.

    Args:
        path: PNG file to write; an existing one is replaced.
        photos: this and the following arguments: see `make_contact_sheet`.
        names: C class names.
        groups: their groups.
        scores: (N, C) floating scores.
        **options: the other arguments of `make_contact_sheet`.

    Raises:
        ValueError: as `make_contact_sheet` does.
        UserError: the file cannot be written.
    """
    sheet = make_contact_sheet(photos, names, groups, scores, **options)
    with replacing(path) as partial:
        sheet.save(partial, format="PNG", optimize=True)


def make_contact_sheet(
    photos: Sequence[np.ndarray],
    names: Sequence[str],
    groups: Sequence[str],
    scores: ArrayLike,
    labels: ArrayLike | None = None,
    response_maps: ArrayLike | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 2,
    tags: int = 5,
    maps: int = 3,
    title: str = "Photos and their best tags",
    probabilities: ArrayLike | None = None,
    given: ArrayLike | None = None,
) -> Image.Image:
    """Returns a picture of photos with their best tags and response maps.

    Beside each photo are its best tags, each with a bar: its probability, or else from the photo's
    median score (empty) to its best score (full). With labels, correct tags are green with a tick,
    wrong ones red with a cross, and the present classes that are not among the tags are listed as
    missed. Unseen classes have a badge. Below, the response maps of the first tags are shown as
    heat over the photo, each scaled from its median (no heat) to its highest response: a score is
    the mean of a few regions, and responses vary even where nothing is found.

    Args:
        photos: N uint8 arrays (H, W, 3), each of any size.
        names: C class names.
        groups: `"seen"` or `"unseen"` for each class.
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0 (unknown: gray); None: every tag is gray.
        response_maps: (N, h, w, C); None: no maps.
        captions: a line below each photo, such as its file name; None: no captions.
        columns: photos side by side.
        tags: number of tags per photo.
        maps: number of response maps per photo, at most 3.
        title: heading of the sheet.
        probabilities: (N, C), shown instead of scores; NaN: none; None: scores are shown.
        given: (N, C) bool, tags that are bold: they reach their thresholds; None: none is.

    Returns:
        An RGB picture.

    Raises:
        ValueError: for shapes that do not match, photos that are not uint8 RGB, no photos, or
            scores that are NaN.
    """
    scores = np.asarray(scores, np.float64)
    labels = None if labels is None else np.asarray(labels)
    response_maps = None if response_maps is None else np.asarray(response_maps)
    probabilities = None if probabilities is None else np.asarray(probabilities)
    given = None if given is None else np.asarray(given)
    alike = {"labels": labels, "probabilities": probabilities, "given": given}
    _check(photos, names, groups, scores, alike, response_maps, captions)
    tags, columns = min(tags, len(names)), max(1, min(columns, len(photos)))
    maps = 0 if response_maps is None else min(maps, tags, 3)

    pictures = [Image.fromarray(photo) for photo in photos]
    # Landscape photos need less height than the square into which every photo fits.
    photo_height = max(fitted(picture, PHOTO).height for picture in pictures)
    photo_height += CAPTION if captions is not None else 0
    text_height = tags * ROW + (CAPTION if labels is not None else 0)
    map_height = max(fitted(picture, MAP).height for picture in pictures) if maps else 0
    width = 2 * PADDING + PHOTO + PADDING + TAGS_WIDTH
    height = 2 * PADDING + max(photo_height, text_height)
    height += CAPTION + PADDING + map_height if maps else 0
    rows = -(-len(pictures) // columns)
    top = MARGIN + 78
    sheet = Image.new(
        "RGB",
        (
            max(2 * MARGIN + columns * width + (columns - 1) * GAP, 2 * MARGIN + 770),
            top + rows * height + (rows - 1) * GAP + MARGIN,
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, _font(26), anchor="la")
    bar = "from the photo's median score to its best" if probabilities is None else "probability"
    has_unseen = "unseen" in groups
    _draw_legend(sheet, draw, MARGIN + 44, labels is not None, has_unseen, maps > 0, bar)
    for i, picture in enumerate(pictures):
        card = Image.new("RGB", (width, height), PAPER)
        entries = best_tags(
            scores[i],
            names,
            groups,
            row_of(labels, i),
            row_of(probabilities, i),
            row_of(given, i),
            tags,
        )
        best = [tag.column for tag in entries]
        missed = None
        if labels is not None:
            present = np.flatnonzero(labels[i] > 0).tolist()
            missed = [names[c] for c in present if c not in best]
        heats = []
        if response_maps is not None:
            heats = [response_maps[i, :, :, c].astype(np.float64) for c in best[:maps]]
        caption = None if captions is None else captions[i]
        _draw_card(card, picture, caption, entries, missed, heats, map_height)
        x = MARGIN + (i % columns) * (width + GAP)
        sheet.paste(card, (x, top + (i // columns) * (height + GAP)))
    return sheet


def _check(
    photos: Sequence[np.ndarray],
    names: Sequence[str],
    groups: Sequence[str],
    scores: np.ndarray,
    alike: Mapping[str, np.ndarray | None],
    response_maps: np.ndarray | None,
    captions: Sequence[str] | None,
) -> None:
    if not len(photos):
        raise ValueError("contact sheet: no photos to draw")
    for i, photo in enumerate(photos):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise ValueError(
                f"contact sheet: photo {i} must be uint8 (H, W, 3), not {photo.dtype} {photo.shape}"
            )
    expected = len(photos), len(names)
    matching = {
        "groups": (len(photos), len(groups)) == expected,
        "scores": scores.shape == expected,
        **{what: array is None or array.shape == expected for what, array in alike.items()},
        "response_maps": response_maps is None
        or (response_maps.ndim == 4 and response_maps.shape[::3] == expected),
        "captions": captions is None or len(captions) == len(photos),
    }
    for what, matches in matching.items():
        if not matches:
            raise ValueError(
                f"contact sheet: {what} do not match {expected[0]} photos and {expected[1]} names"
            )
    if np.isnan(scores).any():
        raise ValueError(f"contact sheet: {int(np.isnan(scores).sum())} scores are NaN")


def _draw_card(
    card: Image.Image,
    photo: Image.Image,
    caption: str | None,
    tags: Sequence[Tag],
    missed: Sequence[str] | None,
    heats: Sequence[np.ndarray],
    map_height: int,
) -> None:
    draw = ImageDraw.Draw(card)
    right, bottom = card.width - 1, card.height - 1
    draw.rounded_rectangle((0, 0, right, bottom), 12, fill=CARD, outline=EDGE)
    shown = fitted(photo, PHOTO)
    card.paste(shown, (PADDING + (PHOTO - shown.width) // 2, PADDING))
    if caption is not None:
        text = _shortened(draw, caption, PHOTO, _font(14))
        middle = PADDING + PHOTO // 2
        draw.text((middle, PADDING + shown.height + 6), text, QUIET, _font(14), anchor="ma")
    left, y = PADDING + PHOTO + PADDING, PADDING
    for tag in tags:
        _draw_tag(draw, tag, left, y)
        y += ROW
    if missed is not None:
        text = _shortened_list(draw, "missed: ", missed, TAGS_WIDTH, _font(14))
        draw.text((left, y + 4), text, QUIET, _font(14), anchor="la")
    y = card.height - PADDING - map_height
    for column, (tag, heat) in enumerate(zip(tags, heats, strict=False)):
        x = PADDING + column * (MAP + PADDING)
        caption = _shortened(draw, tag.name, MAP, _font(15))
        draw.text((x, y - 8), caption, _color(tag.label), _font(15), anchor="ls")
        card.paste(overlay_heat(fitted(photo, MAP), heat), (x, y))


def _draw_tag(draw: ImageDraw.ImageDraw, tag: Tag, x: int, y: int) -> None:
    color, end = _color(tag.label), x + TAGS_WIDTH
    if tag.label:
        _draw_mark(draw, x, y + 3, tag.label > 0, color)
    x += 0 if tag.label is None else 22
    badge = 62 if tag.unseen else 0
    room = end - x - badge - draw.textlength(tag.value, _font(14)) - 12
    name = _shortened(draw, tag.name, room, _font(16))
    for shift in range(1 + tag.given):  # the font has no bold letters
        draw.text((x + shift, y + 16), name, INK, _font(16), anchor="ls")
    if tag.unseen:
        _draw_badge(draw, x + draw.textlength(name, _font(16)) + 8, y)
    draw.text((end, y + 16), tag.value, QUIET, _font(14), anchor="rs")
    draw.rounded_rectangle((x, y + 21, end, y + 26), 2, fill=TRACK)
    length = round((end - x) * tag.length)
    if length > 2:
        draw.rounded_rectangle((x, y + 21, x + length, y + 26), 2, fill=color)


def _draw_badge(draw: ImageDraw.ImageDraw, x: float, y: int) -> None:
    draw.rounded_rectangle((x, y + 2, x + 54, y + 18), 8, outline=UNSEEN)
    draw.text((x + 27, y + 14), "unseen", UNSEEN, _font(12), anchor="ms")


def _draw_mark(draw: ImageDraw.ImageDraw, x: int, y: int, right: bool, color: str) -> None:
    """A tick or a cross of 14 pixels, for those who cannot tell the colors apart."""
    if right:
        draw.line([(x + 1, y + 7), (x + 5, y + 12), (x + 13, y + 2)], color, 3, joint="curve")
    else:
        draw.line([(x + 2, y + 2), (x + 12, y + 12)], color, 3)
        draw.line([(x + 2, y + 12), (x + 12, y + 2)], color, 3)


def _draw_legend(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    y: int,
    labeled: bool,
    unseen: bool,
    heat: bool,
    bar: str,
) -> None:
    x, font = MARGIN, _font(15)

    def write(text: str) -> None:
        nonlocal x
        draw.text((x, y + 13), text, QUIET, font, anchor="ls")
        x += round(draw.textlength(text, font)) + 24

    if labeled:
        for label, text in ((1, "right"), (-1, "wrong"), (0, "unknown")):
            if label:
                _draw_mark(draw, x, y, label > 0, _color(label))
            else:
                draw.rounded_rectangle((x, y + 5, x + 14, y + 10), 2, fill=UNKNOWN)
            x += 20
            write(text)
    if unseen:
        _draw_badge(draw, x, y - 3)
        x += 62
        write("no training label")
    write(f"bar: {bar}")
    if heat:
        strip = _heat_colors(np.linspace(0, 1, 90)[None].repeat(12, axis=0))
        low = "heat: from the map's median response"
        draw.text((x, y + 13), low, QUIET, font, anchor="ls")
        x += round(draw.textlength(low, font)) + 8
        sheet.paste(Image.fromarray(strip.astype(np.uint8)), (x, y + 1))
        x += 98
        write("to its highest")


def _color(label: int | None) -> str:
    return UNKNOWN if not label else RIGHT if label > 0 else WRONG


def overlay_heat(photo: Image.Image, heat: np.ndarray, color: float = 0.0) -> Image.Image:
    """Returns the photo in gray with its response map over it as heat.

    The heat goes from the map's median (none) to its highest response (full).

    Args:
        photo: RGB, any size.
        heat: (h, w) floating responses.
        color: share of the photo's color that is kept, 0 to 1; too much hides the heat.
    """
    heat = np.nan_to_num(heat)
    low, high = np.median(heat), heat.max()
    heat = np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)
    grid = Image.fromarray(heat.astype(np.float32))
    smooth = np.clip(np.asarray(grid.resize(photo.size, Image.Resampling.BICUBIC)), 0, 1)
    gray = np.asarray(photo.convert("L").convert("RGB"), np.float32)
    if color:
        gray += color * (np.asarray(photo, np.float32) - gray)
    opacity = (0.75 * np.sqrt(smooth))[..., None]
    mixed = (1 - opacity) * gray + opacity * _heat_colors(smooth)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _heat_colors(values: np.ndarray) -> np.ndarray:
    steps = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(values, steps, HEAT[:, c]) for c in range(3)], axis=-1)


def fitted(photo: Image.Image, side: int) -> Image.Image:
    """Returns a photo scaled so that its longer side has `side` pixels."""
    scale = side / max(photo.size)
    width, height = (max(1, round(length * scale)) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: float, font: Font) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _shortened_list(
    draw: ImageDraw.ImageDraw, heading: str, names: Sequence[str], width: float, font: Font
) -> str:
    """As many names as fit, and the number of the others."""
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown} more" if shown < len(names) else ""
        text = heading + ", ".join(names[:shown]) + more
        if draw.textlength(text, font) <= width:
            return text
    return _shortened(draw, heading + (", ".join(names) or "none"), width, font)


def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)

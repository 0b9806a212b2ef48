"""Any image as grey values of 8 bits, by a stated rule."""

import numpy as np
import PIL.Image

# Centre and width in Hounsfield units of soft tissue, where a CT says no window of its own.
CT_WINDOW = (40.0, 400.0)
# Of the values of an image without a window; some stray pixels do not decide.
LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5


def grey(frame: np.ndarray, modality: str | None, window: tuple[float, float] | None) -> np.ndarray:
    """uint8 (H, W) from (H, W) or (H, W, 3) of any type.

    Colours become luminance (ITU-R BT.601), of what their highest possible value is. Grey of 8 bits without a window
    stays as it is. All else is cut by the window: the header's, for CT without one CT_WINDOW, else from the 0.5th to
    the 99.5th percentile of its values; an image of one value becomes 0.
    Source of the window: DICOM PS3.3 C.11.2.1.2.1, which takes half a value off the centre and one off the width.
    """
    if frame.ndim == 3:
        if frame.dtype != np.uint8:
            frame = frame * (255.0 / (np.iinfo(frame.dtype).max if frame.dtype.kind in "iu" else frame.max() or 1.0))
        return np.rint(frame @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    if window is None and modality != "CT" and frame.dtype == np.uint8:
        return frame
    if window is None and modality == "CT":
        window = CT_WINDOW
    if window is not None:
        centre, width = window
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    else:
        low, high = np.percentile(frame, [LOW_PERCENT, HIGH_PERCENT])
    if high <= low:
        return np.where(frame > low, 255, 0).astype(np.uint8)
    scaled = (np.clip(frame, low, high) - np.float64(low)) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (height, width) from uint8 (H, W): bilinear, over all pixels that fall into one. Sides keep no ratio."""
    if frame.shape == (height, width):
        return frame
    return np.asarray(PIL.Image.fromarray(frame).resize((width, height), PIL.Image.Resampling.BILINEAR))

"""Reads frames of videos and cameras and writes videos, with OpenCV."""
import contextlib
import os

import cv2
import numpy as np

from system import quiet
from system.files import UserError, check_file

CODECS = ('avc1', 'vp09', 'mp4v')  # H.264 and VP9 play in browsers; every OpenCV has MPEG-4


@contextlib.contextmanager
def read_frames(source):
    """Context manager: opens a video file (path) or a camera (number) and closes it after the block.

    Yields:
      rate: frames per second; 25 if unknown.
      total: number of frames that the file's header states; 0 if unknown.
      frames: iterator of uint8 RGB [h, w, 3]; empty for a file that is no video, or a missing camera.
    Raises:
      UserError: the path is not a regular file.
    """
    if isinstance(source, str):
        check_file(source)
        source = os.path.abspath(source)  # FFmpeg takes 12:30.mp4 for an address
    capture = cv2.VideoCapture(source)

    def frames():
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(frame[:, :, ::-1])

    try:
        yield (capture.get(cv2.CAP_PROP_FPS) or 25.0, int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0)), frames())
    finally:
        capture.release()


def write_frames(path: str, rate: float, images, until=()) -> tuple:
    """Writes images as the frames of an MP4 file, atomically -> (number of frames, codec).

    The codec is the first of CODECS that OpenCV can write. Without an image no file is written. Raises UserError if not
    all frames could be written.

    Args:
      rate: frames per second.
      images: iterable of uint8 RGB [h, w, 3], all of one size: OpenCV drops a frame of another size.
      until: exception that ends the video, as the end of `images` does.
    """
    part = os.path.splitext(os.path.abspath(path))[0] + '.part.mp4'  # OpenCV: the ending selects the format
    count = 0
    codec = writer = None
    try:
        with contextlib.suppress(until):
            for image in images:
                if writer is None:
                    codec, writer = open_writer(part, rate, image.shape[:2])
                writer.write(np.ascontiguousarray(image[:, :, ::-1]))
                count += 1
        if count:
            writer.release()
            written = num_frames(part)
            if written < count:
                raise UserError('%s: could not be written: %d of %d frames; is the disk full, or the image tiny?'
                                % (path, written, count))
            os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
    return count, codec


def open_writer(path: str, rate: float, size: tuple) -> tuple:
    """Opens a video file to write with the first codec that works -> (codec, cv2.VideoWriter).

    Without a codec that works, the writer is not open and writes nothing. `size`: (height, width) of the frames.
    """
    for codec in CODECS:
        with quiet.suppress_stderr():  # OpenCV prints errors for missing codecs
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), rate, size[::-1])
        if writer.isOpened():
            break
    return codec, writer


def num_frames(path: str) -> int:
    """Returns the number of frames that the header of a video file states.

    Returns 0 if `path` does not exist or is no video. Raises UserError for a folder, pipe or device.
    """
    if not os.path.exists(path):
        return 0
    with read_frames(path) as (_, total, _):
        return total

"""Reads frames from videos and cameras, and writes videos, with OpenCV."""
import contextlib
import os

import cv2
import numpy as np

from runs import plots
from system import quiet
from system.files import UserError, check_file

# With these settings OpenCV opens neither playlists, which can name other files of this machine, nor images.
os.environ.update({
    'OPENCV_FFMPEG_CAPTURE_OPTIONS': 'format_whitelist;mov,avi,matroska,mpeg,mpegts|protocol_whitelist;file',
    'OPENCV_VIDEOIO_PRIORITY_CV_IMAGES': '0',
    'OPENCV_FFMPEG_LOGLEVEL': '-8',  # no messages, because a message would quote bytes of the file
})
SUFFIX = '-overlay.mp4'  # file-name suffix of the videos that `write_overlays` writes
CODECS = ('avc1', 'vp09', 'mp4v')  # H.264 and VP9 play in browsers; every build of OpenCV can write MPEG-4


@contextlib.contextmanager
def read_frames(source):
    """Context manager: opens a video file (path) or a camera (number); yields (rate, total, frames).

    Yields:
      rate: frames per second; 25 if unknown.
      total: number of frames that the header of the file states; 0 if unknown.
      frames: iterator of uint8 RGB [h, w, 3]; empty if the file is not a video or the camera is missing.
    Raises:
      UserError: the path is not a regular file.
    """
    if isinstance(source, str):
        check_file(source)
        source = os.path.abspath(source)  # FFmpeg would take a name like 12:30.mp4 for a URL
    capture = cv2.VideoCapture(source)
    # After the last frame `capture.read()` returns (False, None).
    frames = (np.ascontiguousarray(frame[:, :, ::-1]) for _, frame in iter(capture.read, (False, None)))
    try:
        yield (capture.get(cv2.CAP_PROP_FPS) or 25.0, int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0)), frames)
    finally:
        capture.release()


def num_frames(path: str) -> int:
    """Returns the number of frames that the header of a video file states.

    The result is 0 if `path` is missing or is not a video.
    """
    with contextlib.suppress(UserError), read_frames(path) as (_, total, _):
        return total
    return 0


def open_video(writer, path: str, rate: float, size: tuple) -> str:
    """Opens an MP4 file in a cv2.VideoWriter, with the first of CODECS that OpenCV has -> the codec.

    If no codec works, the writer ignores all frames.

    Args:
      rate: frames per second.
      size: (height, width) of the frames, in pixels.
    """
    for codec in CODECS:
        with quiet.suppress_stderr():  # OpenCV prints errors for missing codecs
            if writer.open(path, cv2.VideoWriter_fourcc(*codec), rate, size[::-1]):
                break
    return codec


def write_overlays(source, path: str, predictor, colors: list, alpha: float, max_pixels: int, progress) -> tuple:
    """Labels each frame of a video or camera, and writes the overlays to `path` -> (frame count, codec).

    The file `path` is an MP4 and is written atomically. A camera is read until Ctrl-C. OpenCV drops a frame that
    differs in size from the first frame.

    Args:
      source: path of a video, or number of a camera.
      predictor: a `predictor.Predictor`.
      alpha: weight of the colours in the overlay, 0 to 1.
      progress: function (frames, total=, unit=) -> iterator of the frames, such as tqdm.tqdm.
    Raises:
      UserError: no frame can be read, a frame has more than `max_pixels` pixels, or not all frames could be written.
        UserError is also raised if more than a tenth of the video plus one second is missing at the end. In this case
        the overlays of all other frames are written.
    """
    part = os.path.splitext(os.path.abspath(path))[0] + '.part.mp4'  # OpenCV needs the extension .mp4
    writer = cv2.VideoWriter()
    count = 0
    with read_frames(source) as (rate, total, frames), contextlib.ExitStack() as last:
        last.callback(lambda: os.path.exists(part) and os.remove(part))
        last.callback(writer.release)
        # For a camera, Ctrl-C stops the recording, and the video file is still completed.
        with contextlib.suppress(KeyboardInterrupt if isinstance(source, int) else ()):
            for image in progress(frames, total=total or None, unit='frame'):
                if image.shape[0] * image.shape[1] > max_pixels:
                    raise UserError('%s: frames have more than %d pixels; shrink the video' % (source, max_pixels))
                if not count:
                    codec = open_video(writer, part, rate, image.shape[:2])
                ids = predictor.predict([image])[0].ids
                overlay = plots.overlay(image, plots.colored(ids, colors), alpha)
                writer.write(np.ascontiguousarray(overlay[:, :, ::-1]))
                count += 1
        if not count:
            raise UserError('%s: no frame can be read; convert the video to MP4, or check the camera' % source)
        writer.release()
        if num_frames(part) < count:
            raise UserError('%s: could not be written; is the disk full, or the image tiny?' % path)
        os.replace(part, path)
    if count < 0.9 * total - rate:  # the header counts more frames if the sound track is longer
        raise UserError('%s: ends after frame %d of %d; get the file again' % (source, count, total))
    return count, codec

"""Serves a web page that labels images and videos with a trained run: python demo.py camvid-segnet-basic

Open http://127.0.0.1:7860 and drop an image or a video on the page to see the class of each pixel. The page needs the
packages of requirements-demo.txt.
"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import html
import os
import re
import sys
import tempfile
import time

import cv2
import numpy as np

import data
import datasets
import evaluate
import networks
from datasets import sample
from inference import outputs, predictor as inference, video
from runs import plots
from runs.folder import read_config, run_folder
from system import cli
from system.files import UserError

SHOWN_SIDE = 1024  # longest side of the image on the page, in pixels; the id map has the size of the uploaded image

CSS = '''#overlay .mask:not(.active):not(.inactive) {opacity: var(--opacity, 0.5)}
#overlay .image-container::after {content: attr(data-name); position: absolute; left: 0; bottom: 0; padding: 0 0.5em;
    color: white; background: black}
#details img {width: 100%; object-fit: contain}'''
NAME_ON_HOVER = '''() => document.addEventListener('mousemove', event => {
    const box = event.target.closest('#overlay .image-container');
    box?.querySelectorAll('.mask').forEach((mask, i) => {
        const {left, top, width, height} = mask.getBoundingClientRect();
        const pixel = new OffscreenCanvas(1, 1).getContext('2d');
        pixel.drawImage(mask, left - event.clientX, top - event.clientY, width, height);
        if (pixel.getImageData(0, 0, 1, 1).data[3] > 127)
            box.dataset.name = document.querySelectorAll('#overlay .legend-item')[i].textContent.trim();
    });
})'''


def parse_args(argv=None):
    """Parses the flags of the demo from `argv`, or from the command line if `argv` is None."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument('run', type=run_folder, help='run folder, or the name of a published run')
    parser.add_argument('--listen', default='127.0.0.1', help='address; 0.0.0.0 lets other machines open the page')
    parser.add_argument('--port', type=cli.number(int, 1, 65535), default=7860, help='port to listen at')
    parser.add_argument('--data_dir', help="folder of the run's data set; the page shows validation images as examples")
    parser.add_argument('--max_pixels', type=cli.positive_int, default=data.MAX_PIXELS,
                        help='largest number of pixels of an image; a larger image is refused without decoding')
    inference.add_flags(parser)
    return parser.parse_args(argv)


def import_gradio(folder: str):
    """Imports Gradio, configured to keep all files in `folder` and to send no telemetry -> the module.

    Environment variables that begin with GRADIO_ are deleted first. For example, GRADIO_ALLOWED_PATHS could let
    visitors read folders of this machine. Raises UserError if Gradio is not installed.
    """
    for name in [name for name in os.environ if name.startswith('GRADIO_')]:
        del os.environ[name]
    # At the start Gradio requests the page from itself. The variable no_proxy makes this request bypass any proxy.
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False', no_proxy='*')
    try:
        import gradio
    except ImportError as error:
        raise UserError('demo.py needs Gradio (%s); pip install -r requirements-demo.txt' % error)
    # With this function of Gradio a visitor could make the server download a file from any address.
    gradio.processing_utils.async_ssrf_protected_download = None
    return gradio


def write_examples(config: dict, data_dir, folder: str) -> list:
    """Writes example images as PNG files to `folder` -> list of [path], the samples of a gradio.Dataset.

    The examples are bundled images of cells and, if the run's data set is found, validation images of the data set.
    Raises UserError if --data_dir is given but does not hold the data set of the run.
    """
    found = {}
    try:
        name = config['flags']['dataset']
        found[name] = datasets.open(name, data_dir or config['flags']['data_dir'], config)
    except UserError:
        if data_dir:
            raise
    found.setdefault('sample', sample.read())
    paths = []
    for name, dataset in found.items():
        for i in plots.panel_examples(dataset, 'val'):
            paths.append(os.path.join(folder, '%s-%d.png' % (name, i)))
            outputs.write_png(paths[-1], dataset.load('val', i)[0])
    return [[path] for path in paths]


def result_path(upload: str, ending: str) -> str:
    """Returns the path of a result file, in a new folder beside the file `upload`.

    For example, the upload street.jpg and the ending '-ids.png' give the file name street-ids.png.
    """
    stem = os.path.splitext(os.path.basename(upload))[0]
    return os.path.join(tempfile.mkdtemp(dir=os.path.dirname(upload)), stem + ending)


def label_image(predictor, config: dict, max_pixels: int, path: str) -> tuple:
    """Labels an image file -> (annotated image, colours, map, path of the id map).

    Args:
      predictor: an `inference.Predictor`.
      config: dict, the content of the run's config.json.
    Returns:
      annotated image: (image, list), the value of a gradio.AnnotatedImage. The list has a pair (mask, name) for each
        predicted class. The mask is bool [h, w]. The name consists of the class and the percentage of the pixels, such
        as 'road 34.5%'. The class with the largest percentage comes first.
      colours: {name: colour of the class}, with colours such as '#ff0000'.
      map: the confidence, uint8 [h, w]; with Monte-Carlo samples the uncertainty, uint8 [h, w, 3].
      path of the id map: path of a PNG file with the class ids, at the size of the uploaded image.
    Raises:
      UserError: the file is not an image, is damaged, or has more than `max_pixels` pixels.
    """
    image = data.read_image(path, config.get('depth', 16), max_pixels)
    ids, variance, confidence, _ = predictor.predict([image])[0]
    id_map = result_path(path, '-ids.png')
    outputs.write_png(id_map, np.array(config['class_ids'], np.uint8)[ids])
    shares = np.bincount(ids.ravel()) / ids.size
    details = confidence if variance is None else plots.uncertainty(variance, len(config['colors']))
    scale = min(1, SHOWN_SIDE / max(ids.shape))
    size = [max(1, round(scale * side)) for side in ids.shape[::-1]]
    image, details = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (image, details)]
    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    names = {i: '%s %.1f%%' % (config['class_names'][i], 100 * shares[i]) for i in np.argsort(-shares) if shares[i]}
    colors = {name: '#%02x%02x%02x' % tuple(config['colors'][i]) for i, name in names.items()}
    return (image, [(ids == i, name) for i, name in names.items()]), colors, details, id_map


def build_page(gr, predictor, config: dict, max_pixels: int, examples: list, title: str):
    """Builds the page -> gradio.Blocks.

    Args:
      gr: the module gradio.
      examples: list of [path], one for each example image.
    """
    def show_image(path):
        if path is None:  # the visitor has removed the file
            return None, None, None
        value, colors, details, id_map = label_image(predictor, config, max_pixels, path)
        return gr.AnnotatedImage(value, color_map=colors), details, id_map

    def show_video(path, alpha, progress=gr.Progress()):  # noqa: B008  Gradio requires this default
        if path is None:
            return None
        overlays = result_path(path, video.SUFFIX)
        video.write_overlays(path, overlays, predictor, config['colors'], alpha, max_pixels, progress.tqdm)
        return overlays

    with gr.Blocks(title=title, delete_cache=(600, 3600)) as page:  # every 600 s, delete files older than 3600 s
        gr.Markdown('# ' + title)
        with gr.Tab('Image'), gr.Row():
            with gr.Column():
                upload = gr.File(label='Image', elem_id='upload')
                dataset = gr.Dataset(components=['image'], samples=examples, label='Examples', elem_id='examples')
                opacity = gr.Slider(0, 1, 0.5, label='Opacity of the classes', elem_id='opacity')
                id_map = gr.DownloadButton('Download the id map', size='sm')
            with gr.Column(scale=2):
                overlay = gr.AnnotatedImage(label='Classes', elem_id='overlay')
                details = gr.Image(format='png', buttons=['download', 'fullscreen'], elem_id='details',
                                   label='Uncertainty' if predictor.settings.samples else 'Confidence')
        with gr.Tab('Video'), gr.Row():
            with gr.Column():
                video_upload = gr.File(label='Video')
                alpha = gr.Slider(0, 1, 0.5, label='Opacity of the classes')
            film = gr.Video(label='Classes', scale=2)
        # A click on an example sets `upload`. The change event of `upload` then calls show_image.
        dataset.click(lambda row: row[0], dataset, upload, api_name='example')
        upload.change(show_image, upload, [overlay, details, id_map])
        video_upload.change(show_video, [video_upload, alpha], film)
        opacity.change(None, opacity, js="value => document.documentElement.style.setProperty('--opacity', value)")
    return page


def explain_errors(gr, page, folder: str):
    """Shows each error on the page as one sentence without folder names; keeps tracebacks out of the terminal.

    Args:
      folder: folder of the uploaded files and results.
    """
    process = page.process_api

    async def process_api(*values, **settings):
        """Answers a request as Gradio does, but replaces an error by a gradio.Error with one sentence."""
        try:
            return await process(*values, **settings)
        except Exception as error:  # forged requests raise errors of many types
            reason = cli.explain(error) or 'not a file of this page (%s); upload it again' % type(error).__name__
            reason = re.sub(re.escape(folder) + r'\S*/', '', cli.one_line(reason))
            raise gr.Error(html.escape(reason), print_exception=False)

    page.process_api = process_api


def serve(args):
    """Serves the page of a run until SIGINT or SIGTERM, then deletes all uploaded files and results."""
    with tempfile.TemporaryDirectory(prefix='segnet-demo-') as folder:
        gr = import_gradio(folder)
        config = read_config(args.run)
        spec = networks.spec_of(config['flags'], len(config['class_names']))
        examples = write_examples(config, args.data_dir, folder)
        run = evaluate.open_run(args, args.run, config['flags'], spec, confidence=True)
        with run as (predictor, _), cli.stop_signals() as received:
            title = os.path.basename(os.path.abspath(args.run))
            page = build_page(gr, predictor, config, args.max_pixels, examples, title)
            explain_errors(gr, page, folder)
            try:
                page.launch(server_name=args.listen, server_port=args.port, share=False, quiet=True, css=CSS,
                            js=NAME_ON_HOVER, footer_links=[], run_history=False, enable_monitoring=False,
                            prevent_thread_lock=True, max_file_size='500mb')
            except OSError:
                raise UserError('--port %d: cannot be opened at %s; give another --port' % (args.port, args.listen))
            print('http://%s:%d; Ctrl-C ends' % (args.listen, args.port), flush=True)
            while not received:
                time.sleep(0.2)
            page.close(verbose=False)


if __name__ == '__main__':
    cli.main(lambda: sys.exit(serve(parse_args())))

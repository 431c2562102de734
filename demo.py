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
import threading
import time

import cv2
import numpy as np

import data
import datasets
import evaluate
import networks
from datasets import sample
from inference import outputs, predictor as inference, video
from predict import VIDEO_SUFFIX
from runs import plots
from runs.folder import read_config, run_folder
from system import cli
from system.files import UserError

SHOWN_SIDE = 1024       # longest side of the shown image, in pixels; the id map has the size of the upload
NUM_EXAMPLES = 4        # number of example images of each data set
MAX_UPLOAD = '500mb'
KEPT_SECONDS = 3600     # uploads and results are deleted after this time
OPACITY = 'Opacity of the classes'

CSS = '''
#overlay .mask:not(.active):not(.inactive) {opacity: var(--opacity, 0.5)}
#overlay .image-container::after {content: attr(data-name); position: absolute; left: 0; bottom: 0; padding: 0 0.5em;
    color: white; background: black}
#shares table * {border: none; padding: 0.1em 0.5em}
#details img {width: 100%; object-fit: contain}
'''
SET_OPACITY = "value => document.documentElement.style.setProperty('--opacity', value)"
NAME_ON_HOVER = '''() => document.addEventListener('mousemove', event => {
    const box = event.target.closest('#overlay .image-container');
    box?.querySelectorAll('.mask').forEach((mask, i) => {
        const place = mask.getBoundingClientRect();
        const pixel = new OffscreenCanvas(1, 1).getContext('2d');
        pixel.drawImage(mask, (event.clientX - place.left) * mask.naturalWidth / place.width,
                        (event.clientY - place.top) * mask.naturalHeight / place.height, 1, 1, 0, 0, 1, 1);
        if (pixel.getImageData(0, 0, 1, 1).data[3])
            box.dataset.name = document.querySelectorAll('#overlay .legend-item')[i].textContent.trim();
    });
})'''


def parse_args(argv=None):
    """Parses the flags of the demo from `argv`, or from the command line if `argv` is None."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument('run', type=run_folder, help='run folder, or the name of a published run')
    parser.add_argument('--listen', default='127.0.0.1', metavar='HOST',
                        help='address to listen at; 0.0.0.0 opens the page to all who can reach this machine')
    parser.add_argument('--port', type=cli.number(int, 1, 65535), default=7860, help='port to listen at')
    parser.add_argument('--data_dir', help="folder of the run's data set; the page shows validation images as examples")
    parser.add_argument('--max_pixels', type=cli.positive_int, metavar='N', default=data.MAX_PIXELS,
                        help='refuse images of more than N pixels, without decoding')
    inference.add_flags(parser)
    return parser.parse_args(argv)


def import_gradio(folder: str):
    """Imports Gradio, configured to keep all files in `folder` and to send no telemetry -> the module.

    The user's environment variables for Gradio are removed, because such variables could let visitors read folders of
    this machine. Raises UserError if Gradio is not installed.
    """
    for name in [name for name in os.environ if name.startswith('GRADIO_')]:
        del os.environ[name]
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_EXAMPLES_CACHE=folder, GRADIO_ANALYTICS_ENABLED='False',
                      no_proxy='*')  # at the start Gradio requests its own page, which needs no proxy
    try:
        import gradio
    except ImportError as error:
        raise UserError('demo.py needs Gradio (%s); pip install -r requirements-demo.txt' % error)

    # Through this function a visitor could let the server download from any address.
    gradio.processing_utils.async_ssrf_protected_download = None
    return gradio


def write_examples(config: dict, data_dir, folder: str) -> list:
    """Writes example images: bundled cells and, if found, validation images of the run -> list of paths.

    Raises UserError if `data_dir`, the value of --data_dir, is given and does not hold the data set of the run.
    """
    name = config['flags']['dataset']
    found = {}
    try:
        found[name] = datasets.open(name, data_dir or config['flags']['data_dir'], config)
    except UserError:
        if data_dir:
            raise
    found['sample'] = sample.read()
    paths = []
    for name, dataset in found.items():
        size = len(dataset.examples['val'])
        for i in sorted({size * i // NUM_EXAMPLES for i in range(NUM_EXAMPLES)}):
            paths.append(os.path.join(folder, '%s-%d.png' % (name, i)))
            outputs.write_png(paths[-1], dataset.load('val', i)[0])
    return paths


class Labeller:
    """Labels the images and videos that visitors upload, with one network.

    Args:
      predictor: `inference.Predictor`.
      config: dict, the content of the run's config.json.
      folder: folder for the results; each result is written to a new sub-folder.
      max_pixels: number of pixels above which an image or frame is refused.
    """

    def __init__(self, predictor, config: dict, folder: str, max_pixels: int):
        self.predictor = predictor
        self.config = config
        self.folder = folder
        self.max_pixels = max_pixels
        self.lock = threading.Lock()  # the network takes one image at a time

    def result_path(self, path: str, ending: str) -> str:
        """Returns a path in a new folder for a result of the file `path`, such as FOLDER/street-ids.png."""
        stem = os.path.splitext(os.path.basename(path))[0]
        return os.path.join(tempfile.mkdtemp(dir=self.folder), stem + ending)

    def predict(self, image):
        """Predicts one image -> `predictor.Prediction`; waits while another thread predicts."""
        with self.lock:
            return self.predictor.predict([image])[0]

    def image(self, path: str) -> tuple:
        """Labels an image file -> ((image, masks), table, map, path of the id map).

        (image, masks) is the value of a gradio.AnnotatedImage. The table is HTML and lists the share of each class. The
        map is uint8: the confidence [h, w], or with Monte-Carlo samples the uncertainty [h, w, 3]. Raises UserError if
        the file is damaged or too large.
        """
        names, colors = self.config['class_names'], self.config['colors']
        image = data.read_image(path, self.config.get('depth', 16), self.max_pixels)
        ids, variance, confidence, _ = self.predict(image)
        id_map = self.result_path(path, '-ids.png')
        outputs.write_png(id_map, np.array(self.config['class_ids'], np.uint8)[ids])
        shares = data.label_counts(ids, len(names))[:-1] / ids.size
        row = '<tr><td style="background: rgb(%d, %d, %d)">&emsp;</td><td>%s</td><td>%.1f%%</td></tr>'
        rows = [row % (tuple(colors[i]) + (html.escape(names[i]), 100 * shares[i]))
                for i in np.argsort(-shares) if shares[i]]
        details = confidence if variance is None else plots.uncertainty(variance, len(names))
        scale = min(1, SHOWN_SIDE / max(ids.shape))
        size = [max(1, round(scale * side)) for side in ids.shape[::-1]]
        image, details = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (image, details)]
        ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
        masks = [((ids == i).astype(np.float32), names[i]) for i in np.unique(ids)]
        return (image, masks), '<table>%s</table>' % ''.join(rows), details, id_map

    def video(self, path: str, alpha: float, progress) -> str:
        """Labels a video -> path of the video with the overlays. Raises UserError for a damaged video."""
        out_path = self.result_path(path, VIDEO_SUFFIX)
        video.write_overlays(path, out_path, lambda image: self.predict(image).ids, self.config['colors'], alpha,
                             self.max_pixels, progress)
        return out_path


def build_page(gr, labeller: Labeller, title: str, examples: list):
    """Builds the page -> gradio.Blocks. `gr` is the module gradio, `examples` a list of paths of images."""
    def label(function, *values):
        """Returns `function(*values)`. The page shows an error that `cli.explain` knows, without names of folders."""
        try:
            return function(*values)
        except Exception as error:
            reason = cli.explain(error)
            if reason is None:
                raise
            reason = re.sub(re.escape(labeller.folder) + r'\S*/', '', cli.one_line(reason))
            raise gr.Error(html.escape(reason), print_exception=False)

    def label_image(path):
        return label(labeller.image, path)

    def label_example(row):
        return label_image(row[0])

    def label_video(path, alpha, progress=gr.Progress()):  # noqa: B008  Gradio requires this default
        return label(labeller.video, path, alpha, progress.tqdm)

    config = labeller.config
    colors = {name: '#%02x%02x%02x' % tuple(color) for name, color in zip(config['class_names'], config['colors'])}
    what = 'Uncertainty' if labeller.predictor.settings.samples else 'Confidence'
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)) as page:
        gr.Markdown('# ' + title)
        with gr.Tab('Image'), gr.Row():
            with gr.Column():
                upload = gr.File(label='Image', elem_id='upload')
                dataset = gr.Dataset(components=['image'], samples=[[path] for path in examples], label='Examples',
                                     elem_id='examples')
                opacity = gr.Slider(0, 1, 0.5, label=OPACITY, elem_id='opacity')
                shares = gr.HTML(elem_id='shares')
            with gr.Column(scale=2):
                overlay = gr.AnnotatedImage(label='Classes', color_map=colors, elem_id='overlay')
                details = gr.Image(label=what, format='png', interactive=False, buttons=['download', 'fullscreen'],
                                   elem_id='details')
                id_map = gr.DownloadButton('Download the id map', size='sm', elem_id='ids')
        with gr.Tab('Video'), gr.Row():
            with gr.Column():
                video_upload = gr.File(label='Video', elem_id='video-upload')
                alpha = gr.Slider(0, 1, 0.5, label=OPACITY)
            film = gr.Video(label='Classes', interactive=False, buttons=['download'], scale=2, elem_id='video')
        results = [overlay, shares, details, id_map]
        for event in (upload.upload(label_image, upload, results, concurrency_id='image'),
                      dataset.click(label_example, dataset, results, concurrency_id='image')):
            event.failure(lambda: [None] * len(results), None, results)
        video_upload.upload(label_video, [video_upload, alpha], film).failure(lambda: None, None, film)
        opacity.change(None, opacity, None, js=SET_OPACITY)
    return page


def refuse_forged_requests(gr, page):
    """Makes the server refuse requests that the page never sends, without a traceback on the terminal."""
    check = page.preprocess_data

    async def preprocess(*values, **settings):
        """Checks a request with Gradio's own function. Any error becomes a message on the page."""
        try:
            inputs = await check(*values, **settings)
            if None in inputs:
                raise ValueError('no file')
            return inputs
        except Exception:
            raise gr.Error('not a file of this page; upload it again', print_exception=False)

    page.preprocess_data = preprocess


def serve(args):
    """Opens the run and serves the page until SIGINT or SIGTERM; then deletes all files that visitors left."""
    with tempfile.TemporaryDirectory(prefix='segnet-demo-') as folder:
        gr = import_gradio(folder)
        config = read_config(args.run)
        spec = networks.spec_of(config['flags'], len(config['class_names']))
        confidence = not evaluate.samples_of(args.samples, spec)  # with samples, the page shows uncertainty instead
        examples = write_examples(config, args.data_dir, folder)
        run = evaluate.open_run(args, args.run, config['flags'], spec, confidence=confidence)
        with run as (predictor, _), cli.stop_signals() as received:
            labeller = Labeller(predictor, config, folder, args.max_pixels)
            page = build_page(gr, labeller, os.path.basename(os.path.abspath(args.run)), examples)
            refuse_forged_requests(gr, page)
            try:
                page.launch(server_name=args.listen, server_port=args.port, share=False, quiet=True, css=CSS,
                            js=NAME_ON_HOVER, footer_links=[], run_history=False, enable_monitoring=False,
                            mcp_server=False, ssr_mode=False, prevent_thread_lock=True, max_file_size=MAX_UPLOAD)
            except OSError:
                raise UserError('--listen %s --port %d: cannot be opened; give another --port if this port is in use'
                                % (args.listen, args.port))
            print('http://%s:%d; Ctrl-C ends' % (args.listen, args.port), flush=True)
            while not received:
                time.sleep(0.2)
            page.close(verbose=False)


if __name__ == '__main__':
    cli.main(lambda: sys.exit(serve(parse_args())))
